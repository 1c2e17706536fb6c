// The controller's end of an NVMe/TCP queue pair, without I/O. NVMe/TCP Transport 1.0.
//
// A command has a slot from its capsule's arrival until
// its response has left; commands beyond the queue's size are a fatal error of the host's. Each R2T
// has a transfer tag of its own, made of the slot and a running number.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "transport/limits.h"
#include "transport/loop.h"
#include "transport/qpair.h"
#include "transport/tcp/qpair_core.h"

namespace nvmf::tcp {

struct ControllerQpairOptions {
  bool header_digest = true;  // accept digests if the host asks
  bool data_digest = true;
  std::uint8_t cpda = 0;  // 0's based, dwords
  std::uint32_t maxh2cdata_bytes = transport::kH2cDataBytes;
  /// The most that one R2T asks for, and how many per command we keep outstanding (the host's
  /// MAXR2T permitting, at most kR2tMax).
  std::uint32_t r2t_bytes = 1024 * 1024;
  std::uint32_t r2t_max = transport::kR2tMax;
  /// The most data of one C2HData PDU.
  std::uint32_t c2h_data_bytes = 1024 * 1024;
  /// For tests of hosts: asked for each C2HData PDU with a data digest whether that is to be wrong.
  /// Empty: never.
  std::function<bool()> corrupt_digest;
};

class ControllerQpair final : public transport::ControllerQpair, private QpairCore {
 public:
  ControllerQpair(const ControllerQpairOptions& options, transport::ControllerQpairEvents& events);
  ~ControllerQpair() override;

  /// Takes an accepted connection; once.
  void start(transport::Loop& loop, std::unique_ptr<transport::Incoming> incoming);
  /// The same with a stream whose user is user(); its on_open() is still to come.
  void start(std::unique_ptr<transport::Stream> stream);
  [[nodiscard]] transport::StreamUser& user() { return *this; }

  /// The host has sent a good ICReq: what does not, in time, is no NVMe/TCP host.
  [[nodiscard]] bool initialized() const { return initialized_; }

  // transport::ControllerQpair
  void open_queue(std::uint32_t queue_entries, std::uint32_t in_capsule_bytes,
                  bool sq_flow_control) override;
  void receive_data(transport::ControllerCommand& command, std::span<std::byte> buffer) override;
  void send_data(transport::ControllerCommand& command, std::span<const std::byte> piece, bool last,
                 bool success) override;
  void respond(transport::ControllerCommand& command, nvme::Status status,
               std::uint64_t result) override;
  void end(Error reason) override;
  void finish() override;
  [[nodiscard]] std::string peer() const override { return peer_name(); }
  [[nodiscard]] std::string local() const override { return local_name(); }

 private:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  enum class State : std::uint8_t {
    free,
    arriving,    // its capsule's data is on the way
    executing,   // with the session
    receiving,   // a piece is being fetched by R2T
    sending,     // a piece is being sent
    responding,  // the response waits to be pushed
  };

  /// One R2T sent and not yet satisfied.
  struct Grant {
    std::uint32_t offset_bytes = 0;  // of the next H2CData
    std::uint32_t left_bytes = 0;
    bool open = false;
  };

  struct Slot {
    transport::ControllerCommand command;
    State state = State::free;
    std::byte* in_capsule = nullptr;
    std::uint8_t generation = 0;
    // receiving
    std::byte* buffer = nullptr;
    std::uint32_t piece_offset_bytes = 0;  // of buffer, in the command's data
    std::uint32_t piece_bytes = 0;
    std::uint32_t asked_bytes = 0;     // of the piece, by R2Ts
    std::uint32_t received_bytes = 0;  // of the piece
    std::array<Grant, transport::kR2tMax> grants;
    std::uint32_t first_grant = 0;
    std::uint32_t grant_count = 0;
    bool digest_ok = true;
    // sending
    const std::byte* piece = nullptr;
    std::uint32_t pushed_bytes = 0;
    bool last = false;
    bool success = false;
    // responding
    nvme::Status status;
    std::uint64_t result = 0;
    std::uint32_t sends = 0;  // PDUs pushed and not yet released
    bool listed = false;
    std::uint32_t next = kNone;
  };

  // QpairCore
  void opened() override;
  void pump() override;
  void released(SendTag tag) override;
  void batch_done() override {}
  std::string eof_text() const override;
  std::string violation_text(const PduError& error) const override;
  void closed(const Error& reason) override;

  // PduHandler
  std::expected<std::byte*, PduError> on_pdu(const PduView& pdu) override;
  void on_pdu_data(bool digest_ok) override;

  std::expected<std::byte*, PduError> on_ic_req(const PduView& pdu);
  std::expected<std::byte*, PduError> on_capsule_cmd(const PduView& pdu);
  std::expected<std::byte*, PduError> on_h2c_data(const PduView& pdu);
  std::expected<std::byte*, PduError> on_term_req(const PduView& pdu);

  void deliver(Slot& slot, std::uint32_t in_capsule_bytes, bool digest_ok);
  [[nodiscard]] nvme::Status check_sgl(const Slot& slot, std::uint32_t in_capsule_bytes) const;
  void enlist(std::uint32_t index);
  /// Each pushes at most one PDU; true when there is more to push for this slot.
  bool push_r2t(std::uint32_t index);
  bool push_data(std::uint32_t index);
  void push_response(Slot& slot);
  /// The host knows (or is about to learn) that the command has ended: its CID may come again.
  void forget_cid(Slot& slot);
  void release_slot(std::uint32_t index);
  std::uint32_t index_of(const transport::ControllerCommand& command) const { return command.slot; }
  [[nodiscard]] std::uint16_t ttag_of(std::uint32_t index, std::uint32_t grant) const;

  ControllerQpairOptions options_;
  transport::ControllerQpairEvents& events_;
  bool initialized_ = false;
  bool queue_open_ = false;
  bool sq_flow_control_ = true;
  std::uint32_t host_r2t_max_ = 1;
  std::uint32_t queue_entries_ = 1;
  std::uint32_t outstanding_ = 0;  // commands whose end the host has not been told
  std::uint32_t fetched_ = 0;      // commands taken from the queue, for SQHD
  std::deque<Slot> slots_;         // grows once, in open_queue(); references stay valid
  std::unique_ptr<std::byte[]> connect_in_capsule_;
  std::unique_ptr<std::byte[]> in_capsule_;
  std::vector<std::uint32_t> free_;
  std::bitset<65536> cids_;           // in flight
  std::uint32_t work_first_ = kNone;  // slots with something to push, in turn
  std::uint32_t work_last_ = kNone;
  // The PDU with data that is arriving.
  std::uint32_t data_slot_ = kNone;
  std::uint32_t data_grant_ = kNone;  // kNone: in-capsule data
};

}  // namespace nvmf::tcp
