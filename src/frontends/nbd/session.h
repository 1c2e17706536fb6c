// One NBD client, sans-IO: a StreamUser that negotiates, then turns requests into BlockRequests and
// their completions into replies.
//
// Everything happens on one loop's thread. After the negotiation nothing is allocated: requests
// have fixed slots, their data comes from the BufferPool. WRITE data is received into, and READ
// data sent from, the very buffer that the device uses; only what arrives together with a header is
// copied.
//
// When the slots, the session's share of the buffers or the pool are used up, the session stops
// reading until something completes. A client that does not read its replies so stalls only itself.
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

  /// Requests that the device has.
  [[nodiscard]] std::size_t under_way() const { return in_device_; }
  /// It does not read because a limit is reached.
  [[nodiscard]] bool stalled() const { return stalled_; }

  // transport::StreamUser
  void on_open(transport::Stream& stream) override;
  std::size_t recv_vectors(std::span<iovec> out) override;
  void recv_advance(std::size_t bytes) override;
  std::size_t send_vectors(std::span<iovec> out) override;
  void send_advance(std::size_t bytes) override;
  void on_eof() override;
  void on_closed(const Error& reason) override;

 private:
  /// A request from its header to the last byte of its reply.
  struct Slot : host::BlockRequest {
    Session* session = nullptr;
    Slot* next_slot = nullptr;  // in the free list, or in the list of replies
    RequestHeader header;
    std::uint32_t buffer_bytes = 0;  // of `data`; 0: none
    bool in_device = false;
    bool queued = false;    // its reply is among the replies
    bool answered = false;  // it was replied to while the device still had it
    Verdict refused;        // a WRITE that was refused: its payload is still to be skipped
    std::uint32_t reply_head_bytes = 0;
    std::uint32_t reply_data_bytes = 0;
    std::array<std::byte, 128> reply_head;
  };
  static_assert(ChunkHeader::kBytes + kChunkErrorBytes + kErrorMessageBytesMax +
                    kChunkOffsetBytes <=
                128);

  // session.cpp: bytes in and out, the end.
  void parse();
  bool step();
  bool negotiate();
  void begin_transmission();
  bool take_payload();
  void resume();
  void on_buffers() override { resume(); }
  void send_control();
  void maybe_finish();
  void end_input();
  void violation(std::string_view what);
  void maybe_gone();
  [[nodiscard]] std::span<const std::byte> staged() const {
    return {staging_.get() + parsed_, fill_ - parsed_};
  }

  // session_requests.cpp: requests and replies.
  bool take_request();
  bool get_buffer(Slot& slot, std::uint32_t bytes);
  void payload_complete();
  void submit(Slot& slot);
  static void on_complete(host::BlockRequest& request);
  void completed(Slot& slot);
  void answer(Slot& slot, WireError error, std::string_view message, bool at_end = false);
  void answer_success(Slot& slot);
  void queue_reply(Slot& slot);
  void release(Slot& slot);

  BufferPool& buffers_;
  Counters& counters_;
  SessionOwner& owner_;
  std::unique_ptr<transport::Stream> stream_;
  Negotiation negotiation_;
  std::uint32_t payload_bytes_max_;
  Error reason_;

  // Receiving. Bytes [parsed_, fill_) of the staging wait to be parsed. A place that was named to
  // the stream stays where it is until the next advance, so bytes are moved only while none is.
  std::unique_ptr<std::byte[]> staging_;
  std::size_t parsed_ = 0;
  std::size_t fill_ = 0;
  bool named_ = false;
  Slot* receiving_ = nullptr;  // the WRITE whose payload comes next
  std::uint32_t payload_left_ = 0;

  // Sending: the negotiation's bytes (one exchange at a time), then replies in order of completion.
  std::vector<std::byte> control_;
  std::size_t control_sent_ = 0;
  Slot* first_reply_ = nullptr;
  Slot* last_reply_ = nullptr;
  std::size_t reply_sent_ = 0;  // bytes of first_reply_

  std::unique_ptr<Slot[]> slots_;
  Slot* free_ = nullptr;
  std::size_t in_device_ = 0;
  std::size_t held_bytes_ = 0;

  host::BlockDevice* device_ = nullptr;
  std::uint16_t flags_ = 0;
  bool structured_ = false;
  bool transmission_ = false;

  bool open_ = false;
  bool stalled_ = false;     // parse() cannot go on: nothing is received
  bool eof_ = false;         // the client has sent its last byte
  bool input_over_ = false;  // whatever comes is ignored
  bool stopping_ = false;
  bool finishing_ = false;
  bool closed_ = false;
};

}  // namespace nvmf::nbd
