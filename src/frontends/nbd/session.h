// One NBD client, sans-IO: a StreamUser that negotiates, then turns requests into BlockRequests and
// their completions into replies. The kernel as a client does not negotiate: everything has been
// said by netlink, and the session is in transmission, with simple replies, from the start.
//
// Everything happens on one loop's thread. After the negotiation nothing is allocated: requests
// have fixed slots, their data comes from the BufferPool. WRITE data is received into, and READ
// data sent from, the very buffer that the device uses; only what arrives together with a header is
// copied.
//
// Pieces. READs and WRITEs are served in pieces of up to kPieceBytesMax, each a BlockRequest of its
// own with a buffer of its own, so that a client never needs more memory than its share. A WRITE is
// answered when all its pieces are done; after an error the rest of its payload is skipped. A READ
// in structured replies is answered chunk by chunk. A READ whose reply is one message (a simple
// reply, or DF) is gathered before it is answered; if it is too large for that, or memory is short
// and the session has nothing else to wait for, the reply begins with what there is. An error after
// that is said in a chunk behind the data where replies are structured; otherwise the connection is
// reset, as the NBD document demands.
//
// BLOCK_STATUS takes a page of that memory for its extents and their descriptors. With extended
// headers every reply is a chunk.
//
// Memory. A session takes from the pool what leaves several times as much to others, and when there
// is nothing it has its reserve: so it goes on, at least piece by piece, whatever other clients
// hold. When its slots or its memory are used up it stops reading until something completes. A
// client that does not read its replies so stalls only itself.
//
// The end. A session is gone when its stream is closed AND the device has completed every request,
// whichever comes last: the device owns a request's buffer until then.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "frontends/nbd/buffer_pool.h"
#include "frontends/nbd/export.h"
#include "frontends/nbd/limits.h"
#include "frontends/nbd/negotiation.h"
#include "frontends/nbd/protocol.h"
#include "frontends/nbd/request.h"
#include "host/block_device.h"
#include "transport/stream.h"
#include "transport/timer.h"

namespace nvmf::nbd {

/// What one thread's sessions have done. Written by that thread, read by any.
struct Counters {
  std::atomic<std::uint64_t> requests{0};  // that reached the device
  std::atomic<std::uint64_t> read_bytes{0};
  std::atomic<std::uint64_t> written_bytes{0};
  std::atomic<std::uint64_t> errors{0};  // replies with an error

  /// For the one thread that writes.
  static void add(std::atomic<std::uint64_t>& counter, std::uint64_t n) {
    counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
};

class Session;

class SessionOwner {
 public:
  /// The stream is closed and nothing is under way. May destroy the session. `reason` says why it
  /// ended.
  virtual void session_gone(Session& session, const Error& reason) = 0;

 protected:
  ~SessionOwner() = default;
};

class Session final : public transport::StreamUser, private BufferWaiter {
 public:
  /// All of them outlive the session. `reactor` selects the device of the export asked for.
  Session(const ExportList& exports, std::size_t reactor, BufferPool& buffers, Counters& counters,
          SessionOwner& owner);
  /// Of the kernel, which has been told `flags`. Its end is never half closed: when no more comes
  /// from it, it reads nothing any more either, and what it had asked here it asks again elsewhere.
  /// So the session then ends at once, and what the device still has keeps its range
  /// (BlockDevice::abandon()). The first `begun_bytes` (at most SimpleReply::kBytes) of the first
  /// reply have been sent already: they are the same in each.
  Session(host::BlockDevice& device, std::uint16_t flags, std::size_t begun_bytes,
          BufferPool& buffers, Counters& counters, SessionOwner& owner);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// Gives the session its stream, before on_open().
  void attach(std::unique_ptr<transport::Stream> stream) { stream_ = std::move(stream); }

  /// Ends the session in order: what is under way is still answered, what comes new is answered
  /// with ESHUTDOWN, and then it closes.
  void stop();
  /// After stop(), when the time is up: answers ESHUTDOWN for everything that the device still has,
  /// and closes. The session is gone once the device is done, too.
  void cut();

  /// Ends it unless it finishes its negotiation within `age` of its beginning.
  void limit_handshake(Duration age);

  /// Answers EIO to every request that has been with the device for longer than `age`. Its range
  /// is held until the device is done with it. A session whose reply to such a request has begun
  /// is reset.
  void answer_older_than(Duration age);

  /// Pieces of requests that the device has.
  [[nodiscard]] std::size_t under_way() const { return in_device_; }
  /// It does not read because a limit is reached.
  [[nodiscard]] bool stalled() const { return stalled_; }
  /// Its end was our decision, because of what the client did or because of an error that could not
  /// be said otherwise: worth a line in the log.
  [[nodiscard]] bool dismissed() const { return dismissed_; }
  /// The client has said that it goes (NBD_CMD_DISC).
  [[nodiscard]] bool said_goodbye() const { return said_goodbye_; }

  // transport::StreamUser
  void on_open(transport::Stream& stream) override;
  std::size_t recv_vectors(std::span<iovec> out) override;
  void recv_advance(std::size_t bytes) override;
  std::size_t send_vectors(std::span<iovec> out) override;
  void send_advance(std::size_t bytes) override;
  void on_eof() override;
  void on_closed(const Error& reason) override;

 private:
  struct Slot;
  static constexpr std::size_t kReplyHeadBytes = 136;

  /// A request from its header to the last byte of its reply.
  struct Request {
    RequestHeader header;
    Instant began_at{};
    Request* next_free = nullptr;
    std::uint32_t cut_bytes = 0;  // handed out to pieces
    std::uint32_t pieces = 0;     // slots that are its own
    std::uint32_t under_way = 0;  // those of them that the device has
    bool in_use = false;
    bool receives = false;  // a payload, be it to skip it
    bool whole = false;     // no further piece will be cut
    bool gathers = false;   // a READ whose reply is one message: its pieces are sent in order
    bool begun = false;     // that reply is being sent although pieces are missing
    bool failed = false;    // `verdict` says how
    bool answered = false;  // by cut(): what the device still completes is of no interest
    Verdict verdict;
    std::uint64_t error_offset = 0;  // of a READ's piece that failed
    Slot* first = nullptr;           // pieces gathered and not yet queued, in order
    Slot* last = nullptr;
    Slot* tail = nullptr;  // for the chunk behind the data of a structured reply that was begun
  };

  struct StatusQuery : host::ExtentsRequest {
    Slot* slot = nullptr;
  };

  /// A piece of a request: what the device gets, and its part of the reply.
  struct Slot : host::BlockRequest {
    Session* session = nullptr;
    Slot* next_slot = nullptr;  // in the free list, the list of replies, or its request's
    Request* request = nullptr;
    Buffer buffer;
    bool in_device = false;
    bool queued = false;  // its reply is among the replies
    std::uint32_t reply_head_bytes = 0;
    std::uint32_t reply_data_bytes = 0;
    StatusQuery status;  // BLOCK_STATUS
    std::array<std::byte, kReplyHeadBytes> reply_head;
  };
  static_assert(ExtendedChunkHeader::kBytes + kChunkErrorBytes + kErrorMessageBytesMax +
                    kChunkOffsetBytes <=
                kReplyHeadBytes);

  // session.cpp: bytes in and out, the end.
  void parse();
  bool step();
  bool negotiate();
  void begin_transmission(host::BlockDevice& device, std::uint16_t flags, const Agreed& agreed);
  bool take_payload();
  void resume();
  void on_buffers() override { resume(); }
  void send_control();
  void maybe_finish();
  void end_input();
  void dismiss(std::string_view what, int code);
  void forget_requests();
  void maybe_gone();
  /// Something is to be answered yet: the session does not end of itself.
  [[nodiscard]] bool serving() const {
    return in_device_ > 0 || (current_ != nullptr && !current_->receives);
  }
  [[nodiscard]] std::span<const std::byte> staged() const {
    return {staging_.get() + parsed_, fill_ - parsed_};
  }

  // session_requests.cpp: requests, their pieces and their memory.
  bool take_request();
  /// What stands in front of the staging, with what of its payload is looked at before the rest.
  struct Incoming {
    RequestHeader header;  // `length` is that of the range, or of a payload that is to come
    std::size_t bytes = 0;
    std::uint32_t payload_bytes = 0;  // that follow
    Verdict verdict;
    bool of_nothing = false;  // a BLOCK_STATUS that names no context
  };
  bool read_header(Incoming& in);
  bool read_status_payload(Incoming& in);
  bool start_request(const Incoming& in);
  void submit_status(Request& request, Buffer page);
  bool cut_read();
  Slot* cut_piece(Request& request);
  [[nodiscard]] std::uint32_t piece_length(const Request& request, std::uint32_t room) const;
  Buffer get_buffer(std::uint32_t want);
  bool start_piece_of_write(Request& request);
  void piece_received();
  void submit_effect(Request& request);
  void submit(Slot& slot, bool within_a_block = false);
  [[nodiscard]] bool has_slots(std::size_t count) const;
  Slot& take_slot(Request& request);
  void release(Slot& slot);
  void pass_on();

  // session_replies.cpp: completions and replies.
  static void on_complete(host::BlockRequest& request);
  void completed(Slot& slot);
  void completed_chunk(Request& request, Slot& slot);
  void completed_gathered(Request& request, Slot& slot);
  void completed_effect(Request& request, Slot& slot);
  static void on_status(host::ExtentsRequest& query);
  void completed_status(Request& request, Slot& slot);
  [[nodiscard]] ChunkOf chunk_of(const Request& r) const { return {r.header, agreed_.extended}; }
  void begin_reply(Request& request);
  void send_gathered(Request& request);
  void stop_cutting(Request& request);
  void give_up(Request& request);
  void answer(Slot& slot, const Verdict& verdict);
  void answer_success(Slot& slot);
  void queue_reply(Slot& slot);

  BufferPool& buffers_;
  Counters& counters_;
  SessionOwner& owner_;
  std::unique_ptr<transport::Stream> stream_;
  Negotiation negotiation_;
  transport::Timer handshake_timer_;
  Instant opened_at_{};
  Error reason_;

  // Receiving. Bytes [parsed_, fill_) of the staging wait to be parsed. A place that was named to
  // the stream stays where it is until the next advance, so bytes are moved only while none is.
  std::unique_ptr<std::byte[]> staging_;
  std::size_t parsed_ = 0;
  std::size_t fill_ = 0;
  bool named_ = false;
  Request* current_ = nullptr;  // the READ that is being cut, or the WRITE whose payload comes next
  Slot* filling_ = nullptr;     // the WRITE's piece that it goes into; without data: it is skipped
  std::uint32_t piece_left_ = 0;    // of the payload, for this piece
  std::uint32_t payload_left_ = 0;  // and in all

  // Sending: the negotiation's bytes (one exchange at a time), then replies in order of completion.
  std::vector<std::byte> control_;
  std::size_t control_sent_ = 0;
  Slot* first_reply_ = nullptr;
  Slot* last_reply_ = nullptr;
  std::size_t reply_sent_ = 0;  // bytes of first_reply_

  /// In one piece, and made when the negotiation is over.
  struct Tables {
    std::array<Slot, kRequestsMax> slots;
    std::array<Request, kRequestsMax> requests;
  };
  std::unique_ptr<Tables> tables_;
  Slot* free_ = nullptr;
  Request* free_requests_ = nullptr;
  std::size_t requests_in_use_ = 0;
  std::size_t in_device_ = 0;
  BufferReserve reserve_;
  std::size_t held_bytes_ = 0;
  bool freed_ = false;  // memory of the pool, which others may wait for
  std::uint32_t piece_bytes_max_ = kPieceBytesMax;

  host::BlockDevice* device_ = nullptr;
  std::uint16_t flags_ = 0;
  Agreed agreed_;
  bool transmission_ = false;
  bool kernel_ = false;

  bool open_ = false;
  bool stalled_ = false;     // parse() cannot go on: nothing is received
  bool eof_ = false;         // the client has sent its last byte
  bool input_over_ = false;  // whatever comes is ignored
  bool stopping_ = false;
  bool finishing_ = false;
  bool closed_ = false;
  bool dismissed_ = false;
  bool said_goodbye_ = false;
};

}  // namespace nvmf::nbd
