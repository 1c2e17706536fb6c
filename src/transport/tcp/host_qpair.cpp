#include "transport/tcp/host_qpair.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "nvme/check.h"
#include "nvme/endian.h"
#include "transport/connector.h"
#include "transport/tcp/term_words.h"

namespace nvmf::tcp {
namespace {

constexpr std::uint8_t kPsdtSgl = 0x40;  // PSDT 01b: SGL, metadata pointer a contiguous buffer
// Field offsets from the start of the PDU header, for TermReq's FEI.
constexpr std::uint32_t kOffsetCccid = 8;
constexpr std::uint32_t kOffsetR2tl = 16;
constexpr std::uint32_t kOffsetCqeCid = 8 + 12;

std::unexpected<PduError> violation(Fes fes, std::uint32_t fei = 0) {
  return std::unexpected(PduError{fes, fei});
}

}  // namespace

HostQpair::HostQpair(const HostQpairOptions& options, transport::HostQpairEvents& events)
    : QpairCore(false), options_(options), events_(events) {
  NVMF_CHECK(options.queue_entries >= transport::kQueueEntriesMin &&
             options.queue_entries <= transport::kQueueEntriesMax);
  NVMF_CHECK(options.r2t_max >= 1 && options.r2t_max <= transport::kR2tMax);
  // One entry stays empty: a full queue could not be told from an empty one (Base 2.1 §3.3.3.1).
  slots_.resize(options.queue_entries - 1);
  cid_slot_bits_ = static_cast<std::uint32_t>(std::bit_width(slots_.size() - 1));
  for (std::uint32_t i = 0; i < slots_.size(); ++i) append(free_, i);
  free_count_ = static_cast<std::uint32_t>(slots_.size());
  receiver_.rules.asked_hdgst = options.header_digest;
  receiver_.rules.asked_ddgst = options.data_digest;
  receiver_.rules.pda = options.hpda;
}

HostQpair::~HostQpair() {
  NVMF_CHECK(stream_ == nullptr);
}

void HostQpair::start(transport::Loop& loop, const transport::Endpoint& to,
                      const transport::ConnectOptions& options) {
  target_ = to.to_string();
  stream_ = options.through != nullptr ? options.through->connect(loop, to, options, *this)
                                       : loop.connect(to, options, *this);
}

void HostQpair::opened() {
  std::array<std::byte, kIcBytes> pdu{};
  IcReq{.pfv = 0,
        .hpda = options_.hpda,
        .hdgst = options_.header_digest,
        .ddgst = options_.data_digest,
        .maxr2t = options_.r2t_max - 1}
      .encode(pdu);
  sender_.push_raw(pdu);
  wake();
}

std::uint32_t HostQpair::free_slots() const {
  return ready_ && !ending() ? free_count_ : 0;
}

void HostQpair::set_in_capsule_bytes(std::uint32_t bytes) {
  options_.in_capsule_bytes = std::min(bytes, transport::kInCapsuleBytesMax);
}

std::string HostQpair::describe() const {
  return target_ + (options_.qid == 0 ? " admin queue" : " queue " + std::to_string(options_.qid));
}

void HostQpair::append(SlotList& list, std::uint32_t slot) {
  slots_[slot].next = kNone;
  if (list.first == kNone) {
    list.first = slot;
  } else {
    slots_[list.last].next = slot;
  }
  list.last = slot;
}

std::uint32_t HostQpair::take_first(SlotList& list) {
  const std::uint32_t slot = list.first;
  list.first = slots_[slot].next;
  if (list.first == kNone) list.last = kNone;
  return slot;
}

std::uint16_t HostQpair::cid_of(std::uint32_t slot) const {
  return static_cast<std::uint16_t>(slots_[slot].generation << cid_slot_bits_ | slot);
}

HostQpair::Slot* HostQpair::find(std::uint16_t cid) {
  const std::uint32_t index = cid & ((1u << cid_slot_bits_) - 1);
  if (index >= slots_.size()) return nullptr;
  Slot& slot = slots_[index];
  if (slot.command == nullptr || !slot.capsule_pushed || slot.answered) return nullptr;
  return cid_of(index) == cid ? &slot : nullptr;
}

void HostQpair::submit(transport::HostCommand& command) {
  NVMF_CHECK(free_slots() > 0);
  NVMF_CHECK(command.data_bytes <= transport::kCommandBytesMax);
  NVMF_CHECK((command.direction == transport::DataDirection::none) == (command.data_bytes == 0));
  const std::uint32_t index = take_first(free_);
  --free_count_;
  if (free_count_ == 0) starved_ = true;
  Slot& slot = slots_[index];
  const std::uint16_t generation =
      static_cast<std::uint16_t>((slot.generation + 1u) & ((1u << (16 - cid_slot_bits_)) - 1));
  slot = Slot{};
  slot.generation = generation;
  // CID FFFFh means "no particular command" in the error log (Base 2.1 §4.1.1): never used.
  if (cid_of(index) == 0xffff) slot.generation = 0;
  slot.command = &command;
  command.received_bytes = 0;
  command.delivery = transport::Delivery::not_sent;
  append(capsules_, index);
  wake();
}

void HostQpair::pump() {
  while (ready_ && sender_.room()) {
    // Capsules before data: they are small and give the controller work.
    if (capsules_.first != kNone) {
      push_capsule(take_first(capsules_));
    } else if (data_.first != kNone) {
      push_data(take_first(data_));
    } else {
      return;
    }
  }
}

void HostQpair::push_capsule(std::uint32_t index) {
  Slot& slot = slots_[index];
  transport::HostCommand& command = *slot.command;
  nvme::Sqe& sqe = command.sqe;
  sqe.cid = cid_of(index);
  sqe.flags = static_cast<std::uint8_t>((sqe.flags & 0x3f) | kPsdtSgl);
  const bool connect = sqe.is_fabrics() && sqe.fabrics_type() == nvme::FabricsType::connect;
  const bool to_controller = command.direction == transport::DataDirection::to_controller;
  // Connect's data is always in the capsule: an R2T for it has crashed a kernel target. Every
  // controller takes 8192 bytes on the admin queue and with fabrics commands (§3.3.1).
  const std::uint32_t in_capsule_max =
      connect ? transport::kAdminInCapsuleBytes : options_.in_capsule_bytes;
  const bool in_capsule = to_controller && command.data_bytes <= in_capsule_max;
  sqe.sgl = {0, command.data_bytes,
             in_capsule ? nvme::kSglDataBlockOffset : nvme::kSglTransportDataBlock};

  std::array<std::byte, kCapsuleCmdBytes> header{};
  CommonHeader{.type = PduType::capsule_cmd}.encode(header.data());
  sqe.encode(std::span(header).subspan<kCommonHeaderBytes, nvme::kSqeBytes>());
  std::span<const std::byte> payload;
  if (in_capsule) payload = {command.data, command.data_bytes};
  slot.capsule_pushed = true;
  command.delivery = transport::Delivery::unanswered;
  ++slot.sends;
  sender_.push(header, payload, format_, index);
}

void HostQpair::push_data(std::uint32_t index) {
  Slot& slot = slots_[index];
  slot.in_data_list = false;
  // A controller that has answered wants no more data.
  if (slot.answered) return complete_if_done(index);
  Transfer& t = slot.transfers[slot.first_transfer];
  const std::uint32_t bytes = std::min(t.left_bytes, granted_.maxh2cdata_bytes);
  const bool last = bytes == t.left_bytes;
  std::array<std::byte, kDataHeaderBytes> header{};
  CommonHeader{.type = PduType::h2c_data, .flags = last ? kFlagLast : std::uint8_t{0}}.encode(
      header.data());
  DataHeader{
      .cccid = cid_of(index), .ttag = t.ttag, .datao_bytes = t.offset_bytes, .datal_bytes = bytes}
      .encode(header.data());
  ++slot.sends;
  sender_.push(header, {slot.command->data + t.offset_bytes, bytes}, format_, index);
  t.offset_bytes += bytes;
  t.left_bytes -= bytes;
  if (last) {
    slot.first_transfer = (slot.first_transfer + 1) % transport::kR2tMax;
    --slot.transfer_count;
  }
  if (slot.transfer_count != 0) {
    slot.in_data_list = true;
    append(data_, index);
  }
}

void HostQpair::released(SendTag tag) {
  --slots_[tag].sends;
  complete_if_done(tag);
}

void HostQpair::batch_done() {
  if (starved_ && free_slots() != 0) {
    starved_ = false;
    events_.on_slot_free();
  }
}

std::expected<std::byte*, PduError> HostQpair::on_pdu(const PduView& pdu) {
  switch (pdu.common.type) {
    case PduType::ic_resp:
      return on_ic_resp(pdu);
    case PduType::c2h_term_req:
      return on_term_req(pdu);
    case PduType::capsule_resp:
      return on_capsule_resp(pdu);
    case PduType::c2h_data:
      return on_c2h_data(pdu);
    case PduType::r2t:
      return on_r2t(pdu);
    default:
      return violation(Fes::invalid_header_field);
  }
}

std::expected<std::byte*, PduError> HostQpair::on_ic_resp(const PduView& pdu) {
  granted_ = IcResp::decode(pdu.header.data());
  if ((options_.header_digest && !granted_.hdgst) || (options_.data_digest && !granted_.ddgst)) {
    // §3.3.1.1 lets the host refuse; going on without would be a silent downgrade.
    const bool header = options_.header_digest && !granted_.hdgst;
    end(Error{"the controller at " + describe() + " declined the " +
                  (header ? "header digest" : "data digest") +
                  " that was asked for; connect without " +
                  (header ? "--hdr-digest" : "--data-digest") + " or enable it on the target",
              EPROTO});
    return nullptr;
  }
  format_ = {.hdgst = granted_.hdgst, .ddgst = granted_.ddgst, .pda = granted_.cpda};
  receiver_.rules.initialized = true;
  receiver_.rules.hdgst = granted_.hdgst;
  receiver_.rules.ddgst = granted_.ddgst;
  ready_ = true;
  events_.on_ready();
  return nullptr;
}

std::expected<std::byte*, PduError> HostQpair::on_capsule_resp(const PduView& pdu) {
  const nvme::Cqe cqe =
      nvme::Cqe::decode(pdu.header.subspan<kCommonHeaderBytes, nvme::kCqeBytes>());
  Slot* slot = find(cqe.cid);
  if (slot == nullptr) return violation(Fes::invalid_header_field, kOffsetCqeCid);
  answer(*slot, cqe);
  return nullptr;
}

/// §3.3.2.1
std::expected<std::byte*, PduError> HostQpair::on_c2h_data(const PduView& pdu) {
  const DataHeader data = DataHeader::decode(pdu.header.data());
  Slot* slot = find(data.cccid);
  if (slot == nullptr) return violation(Fes::invalid_header_field, kOffsetCccid);
  transport::HostCommand& command = *slot->command;
  if (command.direction != transport::DataDirection::from_controller || slot->last_received) {
    return violation(Fes::pdu_sequence_error);
  }
  if (data.datao_bytes > command.data_bytes ||
      data.datal_bytes > command.data_bytes - data.datao_bytes) {
    return violation(Fes::data_out_of_range);
  }
  if (data.datao_bytes != command.received_bytes) return violation(Fes::pdu_sequence_error);
  data_slot_ = static_cast<std::uint32_t>(slot - slots_.data());
  data_last_ = (pdu.common.flags & kFlagLast) != 0;
  data_success_ = (pdu.common.flags & kFlagSuccess) != 0;
  return command.data + data.datao_bytes;
}

/// §3.3.2.2
std::expected<std::byte*, PduError> HostQpair::on_r2t(const PduView& pdu) {
  const R2tHeader r2t = R2tHeader::decode(pdu.header.data());
  Slot* slot = find(r2t.cccid);
  if (slot == nullptr) return violation(Fes::invalid_header_field, kOffsetCccid);
  const transport::HostCommand& command = *slot->command;
  // Nothing may be asked of a read, nor of a write whose data went in the capsule.
  if (command.direction != transport::DataDirection::to_controller ||
      command.sqe.sgl.type != nvme::kSglTransportDataBlock) {
    return violation(Fes::pdu_sequence_error);
  }
  if (r2t.r2tl_bytes == 0) return violation(Fes::invalid_header_field, kOffsetR2tl);
  if (r2t.r2to_bytes > command.data_bytes || r2t.r2tl_bytes > command.data_bytes - r2t.r2to_bytes) {
    return violation(Fes::data_out_of_range);
  }
  if (r2t.r2to_bytes != slot->r2t_end_bytes) return violation(Fes::pdu_sequence_error);
  if (slot->transfer_count >= options_.r2t_max) return violation(Fes::limit_exceeded);
  slot->transfers[(slot->first_transfer + slot->transfer_count) % transport::kR2tMax] = {
      r2t.ttag, r2t.r2to_bytes, r2t.r2tl_bytes};
  ++slot->transfer_count;
  slot->r2t_end_bytes += r2t.r2tl_bytes;
  if (!slot->in_data_list) {
    slot->in_data_list = true;
    append(data_, static_cast<std::uint32_t>(slot - slots_.data()));
  }
  wake();
  return nullptr;
}

std::expected<std::byte*, PduError> HostQpair::on_term_req(const PduView& pdu) {
  term_req_ = TermReq::decode(pdu.header.data());
  if (pdu.data_bytes == 0) {
    term_req_received();
    return nullptr;
  }
  term_req_arriving_ = true;
  return term_req_data_.data();
}

void HostQpair::on_pdu_data(bool digest_ok) {
  if (term_req_arriving_) return term_req_received();
  Slot& slot = slots_[data_slot_];
  transport::HostCommand& command = *slot.command;
  // PduReceiver delivers whole payloads only, one at a time.
  const std::uint32_t bytes = receiver_.payload_bytes();
  command.received_bytes += bytes;
  if (!digest_ok) slot.digest_bad = true;
  if (data_last_) slot.last_received = true;
  data_slot_ = kNone;
  // §3.3.2.1: the SUCCESS flag stands for a response of all zeroes.
  if (data_success_) {
    nvme::Cqe cqe;
    cqe.cid = command.sqe.cid;
    answer(slot, cqe);
  }
}

/// Ends a command in the eyes of the controller. NVMe knows no short read: data that a successful
/// command promised and did not send is an error, wherever the success was said. Nor is a write
/// done whose data was not fetched: believed, it would be lost without a word.
void HostQpair::answer(Slot& slot, const nvme::Cqe& cqe) {
  transport::HostCommand& command = *slot.command;
  slot.answered = true;
  command.delivery = transport::Delivery::answered;
  command.cqe = cqe;
  const bool reads = command.direction == transport::DataDirection::from_controller;
  if (cqe.status.ok() && reads) {
    if (slot.digest_bad) {
      command.cqe.status = nvme::StatusCode::transient_transport_error;  // §3.5.1
    } else if (command.received_bytes != command.data_bytes) {
      command.cqe.status = nvme::StatusCode::data_transfer_error;
    }
  }
  // Data that an R2T was to fetch: none for the rest of it, or one that we have not answered yet.
  const bool fetched = slot.r2t_end_bytes == command.data_bytes && slot.transfer_count == 0;
  const bool by_r2t = command.direction == transport::DataDirection::to_controller &&
                      command.sqe.sgl.type == nvme::kSglTransportDataBlock;
  if (cqe.status.ok() && by_r2t && !fetched) {
    command.cqe.status = nvme::StatusCode::data_transfer_error;
  }
  complete_if_done(static_cast<std::uint32_t>(&slot - slots_.data()));
}

void HostQpair::complete_if_done(std::uint32_t index) {
  Slot& slot = slots_[index];
  if (slot.command == nullptr || !slot.answered || slot.sends != 0) return;
  // push_data() unlinks it at the next turn and comes back here.
  if (slot.in_data_list) return;
  transport::HostCommand& command = *slot.command;
  slot.command = nullptr;
  append(free_, index);
  ++free_count_;
  command.complete(command);
}

void HostQpair::end(Error reason) {
  if (stream_ != nullptr) end_with(std::move(reason));
}

void HostQpair::finish() {
  if (stream_ != nullptr) finish_with(Error{"the connection to " + describe() + " was ended", 0});
}

std::string HostQpair::eof_text() const {
  if (!ready_) {
    return target_ +
           " closed the connection without answering the ICReq: is it an NVMe/TCP target?";
  }
  return "the controller closed the connection of " + describe();
}

std::string HostQpair::violation_text(const PduError& error) const {
  if (!ready_ && receiver_.offending_header().size() < kIcBytes) {
    return target_ + " does not speak NVMe/TCP: its first bytes are no ICResp; check the port";
  }
  if (error.drop) return "the controller at " + describe() + " sent a TermReq of impossible length";
  return "the controller at " + describe() + " broke the protocol: " +
         describe_term_req(error.fes, error.fei, true, receiver_.offending_header(), "its") +
         "; try " + std::string(fes_words(error.fes, true).hint);
}

void HostQpair::closed(const Error& reason) {
  Error why = reason;
  if (!ready_ && why.code == ECONNRESET) why.code = ECONNABORTED;
  // In the order of slots: no order of completion is promised. Callbacks find free_slots() == 0.
  for (Slot& slot : slots_) {
    if (slot.command == nullptr) continue;
    transport::HostCommand& command = *slot.command;
    slot.command = nullptr;
    command.complete(command);
  }
  events_.on_ended(why);  // may destroy us
}

}  // namespace nvmf::tcp
