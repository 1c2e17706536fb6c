// The host's end of an NVMe/TCP queue pair, without I/O. NVMe/TCP Transport 1.0.
//
// A Stream (a socket, or the simulator's network) carries its bytes. ICReq goes out when the stream
// opens; on_ready() follows a good ICResp.
//
// A slot is one command in flight. Its index and a generation make the CID, so that a stale or
// duplicate CID of the peer's is detected. A slot is free again when the response has arrived AND
// the stream has released the last byte of ours that it named: only then is `complete` called, so
// that the caller may reuse its buffer.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "transport/limits.h"
#include "transport/loop.h"
#include "transport/qpair.h"
#include "transport/tcp/qpair_core.h"

namespace nvmf::tcp {

struct HostQpairOptions {
  std::uint16_t qid = 0;             // 0: admin queue
  std::uint32_t queue_entries = 32;  // SQSIZE + 1; one entry stays empty
  bool header_digest = false;        // asked for; declining is a failure
  bool data_digest = false;
  std::uint32_t r2t_max = transport::kR2tMax;  // R2Ts per command that we accept, 1 to kR2tMax
  std::uint8_t hpda = 0;                       // 0's based, dwords
  /// In-capsule data until set_in_capsule_bytes(): 8192 for admin, 0 for I/O queues. Connect's data
  /// always goes in the capsule.
  std::uint32_t in_capsule_bytes = transport::kAdminInCapsuleBytes;
};

class HostQpair final : public transport::HostQpair, private QpairCore {
 public:
  HostQpair(const HostQpairOptions& options, transport::HostQpairEvents& events);
  ~HostQpair() override;

  /// Opens the connection; once. on_ready() or on_ended() follows, neither inside. An Error with
  /// code ECONNABORTED means that the peer closed without a word after our ICReq.
  void start(transport::Loop& loop, const transport::Endpoint& to,
             const transport::ConnectOptions& options);

  // transport::HostQpair
  [[nodiscard]] std::uint32_t free_slots() const override;
  void submit(transport::HostCommand& command) override;
  void set_in_capsule_bytes(std::uint32_t bytes) override;
  void end(Error reason) override;
  void finish() override;
  [[nodiscard]] std::string describe() const override;
  [[nodiscard]] bool peer_closed() const override { return peer_has_closed(); }

  /// What the controller granted, after on_ready().
  [[nodiscard]] const IcResp& granted() const { return granted_; }

 private:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  /// One R2T that is being answered.
  struct Transfer {
    std::uint16_t ttag = 0;
    std::uint32_t offset_bytes = 0;  // of the next H2CData
    std::uint32_t left_bytes = 0;
  };

  struct Slot {
    transport::HostCommand* command = nullptr;
    std::uint16_t generation = 0;
    bool capsule_pushed = false;  // its CID is known to the network
    bool answered = false;        // its response, or the data that stands for one, has come
    bool digest_bad = false;
    bool last_received = false;  // the C2HData with LAST_PDU has come
    bool in_data_list = false;
    std::uint32_t sends = 0;          // PDUs pushed and not yet released
    std::uint32_t r2t_end_bytes = 0;  // where the next R2T must begin
    std::array<Transfer, transport::kR2tMax> transfers;
    std::uint32_t first_transfer = 0;
    std::uint32_t transfer_count = 0;
    std::uint32_t next = kNone;  // in one list at a time: free, to send, with data to send
  };

  /// A FIFO of slots, linked through Slot::next.
  struct SlotList {
    std::uint32_t first = kNone;
    std::uint32_t last = kNone;
  };

  // QpairCore
  void opened() override;
  void pump() override;
  void released(SendTag tag) override;
  void batch_done() override;
  std::string eof_text() const override;
  std::string violation_text(const PduError& error) const override;
  void closed(const Error& reason) override;

  // PduHandler
  std::expected<std::byte*, PduError> on_pdu(const PduView& pdu) override;
  void on_pdu_data(bool digest_ok) override;

  std::expected<std::byte*, PduError> on_ic_resp(const PduView& pdu);
  std::expected<std::byte*, PduError> on_capsule_resp(const PduView& pdu);
  std::expected<std::byte*, PduError> on_c2h_data(const PduView& pdu);
  std::expected<std::byte*, PduError> on_r2t(const PduView& pdu);
  std::expected<std::byte*, PduError> on_term_req(const PduView& pdu);

  void append(SlotList& list, std::uint32_t slot);
  std::uint32_t take_first(SlotList& list);
  [[nodiscard]] std::uint16_t cid_of(std::uint32_t slot) const;
  /// The one way from a peer's CID to a slot; nullptr for every CID that is not in flight.
  Slot* find(std::uint16_t cid);
  void push_capsule(std::uint32_t index);
  void push_data(std::uint32_t index);
  void answer(Slot& slot, const nvme::Cqe& cqe);
  void complete_if_done(std::uint32_t index);

  HostQpairOptions options_;
  transport::HostQpairEvents& events_;
  std::string target_;  // where start() was told to go
  bool ready_ = false;
  IcResp granted_;
  std::vector<Slot> slots_;
  std::uint32_t cid_slot_bits_ = 0;
  SlotList free_;
  SlotList capsules_;  // to be sent
  SlotList data_;      // with R2Ts to answer, in turn
  std::uint32_t free_count_ = 0;
  bool starved_ = false;
  // The data PDU that is arriving.
  std::uint32_t data_slot_ = kNone;
  bool data_last_ = false;
  bool data_success_ = false;
};

}  // namespace nvmf::tcp
