#include "transport/tcp/controller_qpair.h"

#include <algorithm>
#include <utility>

#include "nvme/check.h"
#include "nvme/endian.h"
#include "transport/tcp/term_words.h"

namespace nvmf::tcp {
namespace {

constexpr std::uint8_t kPsdtShift = 6;
constexpr std::uint8_t kPsdtSgl = 1;
constexpr std::uint8_t kPsdtSglMetadataSgl = 2;
constexpr std::uint32_t kOffsetFlags = 1;
constexpr std::uint32_t kOffsetCccid = 8;
constexpr std::uint32_t kOffsetTtag = 10;
constexpr std::uint32_t kTtagGrantBits = 2;
static_assert(1u << kTtagGrantBits == transport::kR2tMax);
// A slot is released when its last byte is, which we may learn after the host has reused its place
// in the queue: twice the queue's entries cover that.
constexpr std::uint32_t kSlotsPerEntry = 2;
constexpr std::uint32_t kTtagSlotBits = 11;
static_assert(transport::kQueueEntriesMax * kSlotsPerEntry <= 1u << kTtagSlotBits);
constexpr std::uint32_t kTtagGenerationMask = (1u << (16 - kTtagGrantBits - kTtagSlotBits)) - 1;

std::unexpected<PduError> violation(Fes fes, std::uint32_t fei = 0) {
  return std::unexpected(PduError{fes, fei});
}

}  // namespace

ControllerQpair::ControllerQpair(const ControllerQpairOptions& options,
                                 transport::ControllerQpairEvents& events)
    : QpairCore(true), options_(options), events_(events) {
  NVMF_CHECK(options.r2t_max >= 1 && options.r2t_max <= transport::kR2tMax);
  NVMF_CHECK(options.maxh2cdata_bytes >= transport::kH2cDataBytesMin);
  receiver_.rules.pda = options.cpda;
  receiver_.rules.maxh2cdata_bytes = options.maxh2cdata_bytes;
  receiver_.rules.in_capsule_bytes_max = transport::kAdminInCapsuleBytes;
  // One slot, for Connect; open_queue() makes the others.
  connect_in_capsule_ =
      std::make_unique_for_overwrite<std::byte[]>(transport::kAdminInCapsuleBytes);
  slots_.emplace_back();
  slots_.front().in_capsule = connect_in_capsule_.get();
  free_.push_back(0);
}

ControllerQpair::~ControllerQpair() {
  NVMF_CHECK(stream_ == nullptr);
}

void ControllerQpair::start(transport::Loop& loop, std::unique_ptr<transport::Incoming> incoming) {
  stream_ = loop.adopt(std::move(incoming), *this);
}

void ControllerQpair::start(std::unique_ptr<transport::Stream> stream) {
  stream_ = std::move(stream);
}

void ControllerQpair::opened() {}

void ControllerQpair::open_queue(std::uint32_t queue_entries, std::uint32_t in_capsule_bytes,
                                 bool sq_flow_control) {
  NVMF_CHECK(!queue_open_ && queue_entries >= transport::kQueueEntriesMin &&
             queue_entries <= transport::kQueueEntriesMax);
  queue_open_ = true;
  queue_entries_ = queue_entries;
  sq_flow_control_ = sq_flow_control;
  receiver_.rules.in_capsule_bytes_max = in_capsule_bytes;
  const std::uint32_t count = queue_entries * kSlotsPerEntry;
  in_capsule_ = std::make_unique_for_overwrite<std::byte[]>(std::size_t{count} * in_capsule_bytes);
  // Slot 0 is Connect's own, until it is released: it keeps its first buffer and is used no more
  // where queues take larger capsules than that.
  free_.reserve(count);
  for (std::uint32_t i = 1; i < count; ++i) {
    slots_.emplace_back();
    slots_.back().command.slot = i;
    slots_.back().in_capsule = in_capsule_.get() + std::size_t{i} * in_capsule_bytes;
  }
  for (std::uint32_t i = count - 1; i >= 1; --i) free_.push_back(i);
}

std::expected<std::byte*, PduError> ControllerQpair::on_pdu(const PduView& pdu) {
  switch (pdu.common.type) {
    case PduType::ic_req:
      return on_ic_req(pdu);
    case PduType::h2c_term_req:
      return on_term_req(pdu);
    case PduType::capsule_cmd:
      return on_capsule_cmd(pdu);
    case PduType::h2c_data:
      return on_h2c_data(pdu);
    default:
      return violation(Fes::invalid_header_field);
  }
}

std::expected<std::byte*, PduError> ControllerQpair::on_ic_req(const PduView& pdu) {
  const IcReq req = IcReq::decode(pdu.header.data());
  const IcResp resp{.pfv = 0,
                    .cpda = options_.cpda,
                    .hdgst = req.hdgst && options_.header_digest,
                    .ddgst = req.ddgst && options_.data_digest,
                    .maxh2cdata_bytes = options_.maxh2cdata_bytes};
  std::array<std::byte, kIcBytes> out{};
  resp.encode(out);
  sender_.push_raw(out);
  format_ = {.hdgst = resp.hdgst, .ddgst = resp.ddgst, .pda = req.hpda};
  receiver_.rules.initialized = true;
  receiver_.rules.hdgst = resp.hdgst;
  receiver_.rules.ddgst = resp.ddgst;
  // MAXR2T is 0's based and 32 bits wide.
  host_r2t_max_ = std::min(req.maxr2t, transport::kR2tMax - 1) + 1;
  initialized_ = true;
  wake();
  return nullptr;
}

std::expected<std::byte*, PduError> ControllerQpair::on_capsule_cmd(const PduView& pdu) {
  // More commands than the queue has entries: the host does not keep to its own queue.
  if (free_.empty() || outstanding_ >= queue_entries_) return violation(Fes::pdu_sequence_error);
  const std::uint32_t index = free_.back();
  free_.pop_back();
  ++outstanding_;
  ++fetched_;
  Slot& slot = slots_[index];
  slot.command = {};
  slot.command.slot = index;
  slot.command.sqe = nvme::Sqe::decode(pdu.header.subspan<kCommonHeaderBytes, nvme::kSqeBytes>());
  slot.state = State::arriving;
  if (pdu.data_bytes == 0) {
    deliver(slot, 0, true);
    return nullptr;
  }
  data_slot_ = index;
  data_grant_ = kNone;
  return slot.in_capsule;
}

/// §3.3.2: one descriptor, of one of two kinds.
nvme::Status ControllerQpair::check_sgl(const Slot& slot, std::uint32_t in_capsule_bytes) const {
  const nvme::Sqe& sqe = slot.command.sqe;
  // Base 2.2 §4.1.1: SGLs only. Fabrics commands have a PSDT of their own (§4.1.2), which hosts
  // fill in either way.
  const unsigned psdt = sqe.flags >> kPsdtShift;
  if (!sqe.is_fabrics() && psdt != kPsdtSgl && psdt != kPsdtSglMetadataSgl) {
    return {nvme::StatusCode::invalid_field, true};
  }
  const bool none = sqe.sgl.length_bytes == 0 && in_capsule_bytes == 0;
  switch (sqe.sgl.type) {
    case nvme::kSglDataBlockOffset:
      if (sqe.sgl.address != 0) return {nvme::StatusCode::sgl_offset_invalid, true};
      if (sqe.sgl.length_bytes != in_capsule_bytes) {
        return {nvme::StatusCode::data_sgl_length_invalid, true};
      }
      return {};
    case nvme::kSglTransportDataBlock:
      if (in_capsule_bytes != 0) return {nvme::StatusCode::data_sgl_length_invalid, true};
      return {};
    default:
      if (none) return {};
      return {nvme::StatusCode::sgl_type_invalid, true};
  }
}

void ControllerQpair::deliver(Slot& slot, std::uint32_t in_capsule_bytes, bool digest_ok) {
  slot.state = State::executing;
  slot.digest_ok = true;
  transport::ControllerCommand& command = slot.command;
  const std::uint16_t cid = command.sqe.cid;
  if (cids_.test(cid)) {
    // The first one with this CID goes on; forget_cid() must not clear its bit.
    slot.state = State::responding;
    slot.status = {nvme::StatusCode::command_id_conflict, true};
    slot.result = 0;
    slot.command.context = &slot;  // marks the impostor, see forget_cid()
    return enlist(command.slot);
  }
  cids_.set(cid);
  nvme::Status status = check_sgl(slot, in_capsule_bytes);
  if (status.ok() && !digest_ok) status = nvme::StatusCode::transient_transport_error;  // §3.5.1
  if (!status.ok()) return respond(command, status, 0);
  command.data_bytes = command.sqe.sgl.length_bytes;
  if (in_capsule_bytes != 0) {
    command.in_capsule = {slot.in_capsule, in_capsule_bytes};
  } else if (queue_open_) {
    command.spare = {slot.in_capsule, receiver_.rules.in_capsule_bytes_max};
  }
  events_.on_command(command);
}

std::uint16_t ControllerQpair::ttag_of(std::uint32_t index, std::uint32_t grant) const {
  const std::uint32_t generation = slots_[index].generation & kTtagGenerationMask;
  return static_cast<std::uint16_t>((generation << kTtagSlotBits | index) << kTtagGrantBits |
                                    grant);
}

/// §3.3.2.2
std::expected<std::byte*, PduError> ControllerQpair::on_h2c_data(const PduView& pdu) {
  const DataHeader data = DataHeader::decode(pdu.header.data());
  const std::uint32_t grant_index = data.ttag & (transport::kR2tMax - 1);
  const std::uint32_t index = data.ttag >> kTtagGrantBits & ((1u << kTtagSlotBits) - 1);
  const bool known = index < slots_.size() && slots_[index].state == State::receiving &&
                     ttag_of(index, grant_index) == data.ttag &&
                     slots_[index].grants[grant_index].open;
  if (!known) {
    // The lower field first: a CID that is not in flight at all.
    return violation(Fes::invalid_header_field,
                     cids_.test(data.cccid) ? kOffsetTtag : kOffsetCccid);
  }
  Slot& slot = slots_[index];
  if (slot.command.sqe.cid != data.cccid) {
    return violation(Fes::invalid_header_field, kOffsetCccid);
  }
  // R2Ts of one command are served in the order in which they were sent.
  if (grant_index != slot.first_grant) return violation(Fes::pdu_sequence_error);
  Grant& grant = slot.grants[grant_index];
  if (data.datao_bytes != grant.offset_bytes) {
    const std::uint32_t end = grant.offset_bytes + grant.left_bytes;
    return violation(data.datao_bytes >= end ? Fes::data_out_of_range : Fes::pdu_sequence_error);
  }
  if (data.datal_bytes > grant.left_bytes) return violation(Fes::data_out_of_range);
  const bool last = (pdu.common.flags & kFlagLast) != 0;
  if (last != (data.datal_bytes == grant.left_bytes)) {
    return violation(Fes::invalid_header_field, kOffsetFlags);
  }
  data_slot_ = index;
  data_grant_ = grant_index;
  return slot.buffer + (data.datao_bytes - slot.piece_offset_bytes);
}

std::expected<std::byte*, PduError> ControllerQpair::on_term_req(const PduView& pdu) {
  term_req_ = TermReq::decode(pdu.header.data());
  if (pdu.data_bytes == 0) {
    term_req_received();
    return nullptr;
  }
  term_req_arriving_ = true;
  return term_req_data_.data();
}

void ControllerQpair::on_pdu_data(bool digest_ok) {
  if (term_req_arriving_) return term_req_received();
  Slot& slot = slots_[data_slot_];
  const std::uint32_t bytes = receiver_.payload_bytes();
  if (data_grant_ == kNone) return deliver(slot, bytes, digest_ok);

  Grant& grant = slot.grants[data_grant_];
  grant.offset_bytes += bytes;
  grant.left_bytes -= bytes;
  slot.received_bytes += bytes;
  slot.digest_ok = slot.digest_ok && digest_ok;
  if (grant.left_bytes == 0) {
    grant.open = false;
    slot.first_grant = (slot.first_grant + 1) % transport::kR2tMax;
    --slot.grant_count;
  }
  if (slot.received_bytes == slot.piece_bytes) {
    slot.state = State::executing;
    slot.command.moved_bytes += slot.piece_bytes;
    events_.on_data_received(slot.command, slot.digest_ok);
  } else if (slot.asked_bytes < slot.piece_bytes) {
    enlist(data_slot_);
  }
}

void ControllerQpair::receive_data(transport::ControllerCommand& command,
                                   std::span<std::byte> buffer) {
  Slot& slot = slots_[index_of(command)];
  NVMF_CHECK(slot.state == State::executing && command.in_capsule.empty());
  NVMF_CHECK(!buffer.empty() && buffer.size() <= command.data_bytes - command.moved_bytes);
  slot.state = State::receiving;
  ++slot.generation;
  slot.buffer = buffer.data();
  slot.piece_offset_bytes = command.moved_bytes;
  slot.piece_bytes = static_cast<std::uint32_t>(buffer.size());
  slot.asked_bytes = 0;
  slot.received_bytes = 0;
  slot.first_grant = 0;
  slot.grant_count = 0;
  enlist(command.slot);
}

void ControllerQpair::send_data(transport::ControllerCommand& command,
                                std::span<const std::byte> piece, bool last, bool success) {
  Slot& slot = slots_[index_of(command)];
  NVMF_CHECK(slot.state == State::executing && !piece.empty() && (last || !success));
  NVMF_CHECK(piece.size() <= command.data_bytes - command.moved_bytes);
  slot.state = State::sending;
  slot.piece = piece.data();
  slot.piece_bytes = static_cast<std::uint32_t>(piece.size());
  slot.pushed_bytes = 0;
  slot.last = last;
  slot.success = success;
  enlist(command.slot);
}

void ControllerQpair::respond(transport::ControllerCommand& command, nvme::Status status,
                              std::uint64_t result) {
  Slot& slot = slots_[index_of(command)];
  NVMF_CHECK(slot.state == State::executing);
  slot.state = State::responding;
  slot.status = status;
  slot.result = result;
  enlist(command.slot);
}

void ControllerQpair::enlist(std::uint32_t index) {
  Slot& slot = slots_[index];
  if (slot.listed) return;
  slot.listed = true;
  slot.next = kNone;
  if (work_first_ == kNone) {
    work_first_ = index;
  } else {
    slots_[work_last_].next = index;
  }
  work_last_ = index;
  wake();
}

void ControllerQpair::pump() {
  while (work_first_ != kNone && sender_.room()) {
    const std::uint32_t index = work_first_;
    Slot& slot = slots_[index];
    work_first_ = slot.next;
    if (work_first_ == kNone) work_last_ = kNone;
    slot.listed = false;
    bool more = false;
    switch (slot.state) {
      case State::receiving:
        more = push_r2t(index);
        break;
      case State::sending:
        more = push_data(index);
        break;
      case State::responding:
        push_response(slot);
        break;
      case State::free:
      case State::arriving:
      case State::executing:
        break;
    }
    if (more) enlist(index);
  }
}

bool ControllerQpair::push_r2t(std::uint32_t index) {
  Slot& slot = slots_[index];
  const std::uint32_t allowed = std::min(host_r2t_max_, options_.r2t_max);
  if (slot.asked_bytes == slot.piece_bytes || slot.grant_count >= allowed) return false;
  const std::uint32_t bytes = std::min(slot.piece_bytes - slot.asked_bytes, options_.r2t_bytes);
  const std::uint32_t offset = slot.piece_offset_bytes + slot.asked_bytes;
  const std::uint32_t grant = (slot.first_grant + slot.grant_count) % transport::kR2tMax;
  slot.grants[grant] = {offset, bytes, true};
  ++slot.grant_count;
  slot.asked_bytes += bytes;
  std::array<std::byte, kR2tBytes> header{};
  CommonHeader{.type = PduType::r2t}.encode(header.data());
  R2tHeader{.cccid = slot.command.sqe.cid,
            .ttag = ttag_of(index, grant),
            .r2to_bytes = offset,
            .r2tl_bytes = bytes}
      .encode(header.data());
  sender_.push(header, {}, format_, kNoSendTag);
  return slot.asked_bytes < slot.piece_bytes && slot.grant_count < allowed;
}

bool ControllerQpair::push_data(std::uint32_t index) {
  Slot& slot = slots_[index];
  const std::uint32_t bytes =
      std::min(slot.piece_bytes - slot.pushed_bytes, options_.c2h_data_bytes);
  const bool piece_end = slot.pushed_bytes + bytes == slot.piece_bytes;
  const bool last = piece_end && slot.last;
  // §3.3.2.1: SUCCESS only where the host does without SQHD.
  const bool flag_success = last && slot.success && !sq_flow_control_;
  std::array<std::byte, kDataHeaderBytes> header{};
  CommonHeader{.type = PduType::c2h_data,
               .flags = static_cast<std::uint8_t>((last ? kFlagLast : 0) |
                                                  (flag_success ? kFlagSuccess : 0))}
      .encode(header.data());
  DataHeader{.cccid = slot.command.sqe.cid,
             .ttag = 0,
             .datao_bytes = slot.command.moved_bytes + slot.pushed_bytes,
             .datal_bytes = bytes}
      .encode(header.data());
  ++slot.sends;
  PduFormat format = format_;
  if (format.ddgst && options_.corrupt_digest) format.wrong_ddgst = options_.corrupt_digest();
  sender_.push(header, {slot.piece + slot.pushed_bytes, bytes}, format, index);
  slot.pushed_bytes += bytes;
  if (!piece_end) return true;
  if (flag_success) forget_cid(slot);
  if (last && slot.success && !flag_success) {
    // The response goes right behind the data, still in state `sending`: the slot is free when
    // both have been released.
    slot.status = {};
    slot.result = 0;
    if (!sender_.room()) {
      slot.state = State::responding;
      return true;
    }
    push_response(slot);
    slot.state = State::sending;
  }
  return false;
}

void ControllerQpair::push_response(Slot& slot) {
  std::array<std::byte, kCapsuleRespBytes> header{};
  CommonHeader{.type = PduType::capsule_resp}.encode(header.data());
  // With SQ flow control off, SQHD is reserved; FFFFh also tells so in Connect's response
  // (Base 2.1 §6.3).
  const auto sqhd =
      static_cast<std::uint16_t>(sq_flow_control_ ? fetched_ % queue_entries_ : 0xffffu);
  nvme::Cqe{.result = slot.result,
            .sqhd = sqhd,
            .sqid = 0,
            .cid = slot.command.sqe.cid,
            .status = slot.status}
      .encode(std::span(header).subspan<kCommonHeaderBytes, nvme::kCqeBytes>());
  ++slot.sends;
  sender_.push(header, {}, format_, slot.command.slot);
  forget_cid(slot);
}

void ControllerQpair::forget_cid(Slot& slot) {
  const bool impostor = slot.command.context == &slot;
  if (!impostor) cids_.reset(slot.command.sqe.cid);
  --outstanding_;
}

void ControllerQpair::released(SendTag tag) {
  Slot& slot = slots_[tag];
  --slot.sends;
  if (slot.sends != 0 || slot.listed) return;
  if (slot.state == State::responding) {
    if (slot.piece != nullptr && slot.success) events_.on_data_sent(slot.command);
    return release_slot(tag);
  }
  if (slot.state != State::sending || slot.pushed_bytes != slot.piece_bytes) return;
  const bool ended = slot.last && slot.success;
  slot.command.moved_bytes += slot.piece_bytes;
  slot.state = ended ? State::responding : State::executing;
  events_.on_data_sent(slot.command);
  if (ended) release_slot(tag);
}

void ControllerQpair::release_slot(std::uint32_t index) {
  Slot& slot = slots_[index];
  slot.state = State::free;
  slot.piece = nullptr;
  slot.success = false;
  // Connect's slot keeps the small buffer that it was made with.
  if (index == 0 && queue_open_) return;
  free_.push_back(index);
}

void ControllerQpair::end(Error reason) {
  if (stream_ != nullptr) end_with(std::move(reason));
}

void ControllerQpair::finish() {
  if (stream_ != nullptr) finish_with(Error{"the connection was ended", 0});
}

std::string ControllerQpair::eof_text() const {
  return "the host " + peer_name() + " closed the connection";
}

std::string ControllerQpair::violation_text(const PduError& error) const {
  if (error.drop) return "the host " + peer_name() + " sent a TermReq of impossible length";
  return "the host " + peer_name() + " broke the protocol: " +
         describe_term_req(error.fes, error.fei, false, receiver_.offending_header(), "its") +
         "; try " + std::string(fes_words(error.fes, false).hint);
}

void ControllerQpair::closed(const Error& reason) {
  events_.on_ended(reason);
}

}  // namespace nvmf::tcp
