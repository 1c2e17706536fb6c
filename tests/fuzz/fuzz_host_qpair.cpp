// A hostile controller's bytes for the host's queue pair, with commands of all kinds in flight.
//
// The input's front chooses the connection (digests, alignment, R2T and data limits), the rest is a
// program: submit, let the controller say something true, half true or made up, send, take, end.
// Whatever comes, every command completes exactly once, buffers are touched only where the
// controller was granted, what we send is what a controller has to accept, nothing is allocated
// once the queue is ready, and the slots are all free in the end.
#include <memory>
#include <vector>

#include "fuzz/hand_loop.h"
#include "fuzz/input.h"
#include "fuzz/pdu_tools.h"
#include "sim/alloc_count.h"
#include "transport/tcp/host_qpair.h"

namespace nvmf::fuzz {
namespace {

using tcp::PduType;
using transport::DataDirection;
using transport::Delivery;

constexpr std::size_t kCommandsMax = 48;

class Game;

struct Command : transport::HostCommand {
  Game* game = nullptr;
  std::unique_ptr<std::byte[]> buffer;  // exactly as long as the data: its borders are watched
  std::uint64_t seed = 0;
  bool submitted = false;
  int completions = 0;
  // What the controller has done for it, by the truth.
  std::uint32_t asked_bytes = 0;
  // What we have sent for it.
  bool capsule_sent = false;
  std::uint32_t sent_bytes = 0;
};

/// An R2T that was said, and how far it was served.
struct Asked {
  std::uint16_t cid;
  std::uint16_t ttag;
  std::uint32_t offset;
  std::uint32_t left;
};

class Game final : public transport::HostQpairEvents {
 public:
  explicit Game(Input input) : in_(input) {}

  void play() {
    set_up();
    for (int turn = 0; turn < 400 && !in_.empty() && !wire_->closed; ++turn) step();
    end();
  }

  // transport::HostQpairEvents
  void on_ready() override {
    NVMF_CHECK(!ready_);
    ready_ = true;
  }
  void on_slot_free() override { NVMF_CHECK(qpair_->free_slots() != 0); }
  void on_ended(const Error& reason) override {
    NVMF_CHECK(!ended_ && !reason.message.empty());
    ended_ = true;
    for (const Command& c : commands_) NVMF_CHECK(c.completions == (c.submitted ? 1 : 0));
    if (destroy_in_callback_) qpair_.reset();
  }

 private:
  static void completed(transport::HostCommand& done) {
    auto& c = static_cast<Command&>(done);
    NVMF_CHECK(++c.completions == 1);
    c.game->check_buffer(c);
    if (c.game->again_ && !c.game->wire_->closed) c.game->submit(c.game->one_more_);
    if (c.game->end_in_callback_) c.game->qpair_->end(Error{"enough"});
  }

  /// Only what the controller was granted has changed.
  void check_buffer(const Command& c) const {
    const bool reads = c.direction == DataDirection::from_controller;
    if (c.delivery != Delivery::answered && reads) return;  // a payload may have been on its way
    NVMF_CHECK(c.received_bytes <= c.data_bytes && (reads || c.received_bytes == 0));
    for (std::uint32_t i = reads ? c.received_bytes : 0; i < c.data_bytes; ++i) {
      NVMF_CHECK(c.data[i] == pattern(c.seed, i));
    }
    if (c.delivery != Delivery::answered || !c.cqe.status.ok()) return;
    if (!reads) return;
    NVMF_CHECK(c.received_bytes == c.data_bytes);
    for (std::uint32_t i = 0; i < c.data_bytes && !raw_; ++i) {
      NVMF_CHECK(c.data[i] == (pattern(c.seed, i) ^ std::byte{1}));
    }
  }

  void set_up() {
    options_.qid = in_.u8() & 1;
    options_.queue_entries = in_.one_of<std::uint32_t>({2, 3, 4, 8, 9, 17, 33});
    options_.header_digest = in_.flag();
    options_.data_digest = in_.flag();
    options_.r2t_max = static_cast<std::uint32_t>(in_.below(4)) + 1;
    options_.hpda = in_.one_of<std::uint8_t>({0, 0, 1, 4, 10, 31});
    options_.in_capsule_bytes = in_.one_of<std::uint32_t>({0, 512, 4096, 8192, 65536});
    const std::uint8_t callbacks = in_.u8();
    again_ = (callbacks & 7) == 1;
    end_in_callback_ = (callbacks & 15) == 2;
    destroy_in_callback_ = (callbacks & 16) != 0;

    commands_.resize(kCommandsMax);
    asked_.reserve(1024);
    qpair_ = std::make_unique<tcp::HostQpair>(options_, *this);
    qpair_->start(loop_, {"192.0.2.1", 4420, ""}, {});
    wire_ = loop_.wire;
    wire_->do_open();
    wire_->flush();
    check_sent();

    // The handshake: mostly a good one.
    grant_ = {.pfv = 0,
              .cpda = in_.one_of<std::uint8_t>({0, 0, 1, 3, 31}),
              .hdgst = options_.header_digest,
              .ddgst = options_.data_digest,
              .maxh2cdata_bytes = in_.one_of<std::uint32_t>({4096, 4100, 16384, 1 << 20})};
    const std::uint8_t odd = in_.u8();
    if (odd > 240) return;  // the program says what comes first
    Bytes pdu(tcp::kIcBytes);
    grant_.encode(std::span<std::byte, tcp::kIcBytes>(pdu));
    if (odd > 220) pdu[in_.below(tcp::kIcBytes)] ^= static_cast<std::byte>(in_.u8());
    feed(pdu);
  }

  void granted(const tcp::IcResp& resp) {
    grant_ = resp;
    to_host_ = {
        .initialized = true, .hdgst = resp.hdgst, .ddgst = resp.ddgst, .pda = options_.hpda};
    to_controller_ = {.controller = true,
                      .initialized = true,
                      .hdgst = resp.hdgst,
                      .ddgst = resp.ddgst,
                      .pda = resp.cpda,
                      .in_capsule_bytes_max = 65536,
                      .maxh2cdata_bytes = resp.maxh2cdata_bytes};
  }

  void step() {
    switch (in_.below(18)) {
      case 0:
      case 1:
      case 2:
        return submit(in_.u8());
      case 3:
        return answer();
      case 4:
      case 5:
        return give_data();
      case 6:
      case 7:
        return ask_data();
      case 8:
        return serve();
      case 9:
        raw_ = true;
        return feed(in_.bytes(in_.u8()));
      case 10:
        return made_up();
      case 11:
        damage_ = {true, in_.flag(), in_.u16(), static_cast<std::byte>(1 << in_.below(8))};
        return;
      case 12:
        wire_->name(in_.u8());
        return;
      case 13:
        wire_->release(in_.u16());
        return;
      case 14:
        return send_all();
      case 15:
        chunk_ = in_.one_of<std::size_t>({SIZE_MAX, 1, 7, 24, 1000});
        return;
      case 16:
        if (in_.flag()) wire_->post();
        return;
      default:
        return special();
    }
  }

  void special() {
    switch (in_.below(12)) {
      case 0:
        return feed(
            term_req_pdu(PduType::c2h_term_req, in_.u16(), in_.u32(), in_.bytes(in_.below(129))));
      case 1:
        return wire_->eof();
      case 2:
        return qpair_->end(Error{"the fuzzer ended it"});
      case 3:
        return qpair_->finish();
      case 4:
        return wire_->close();
      case 5:
        return qpair_->set_in_capsule_bytes(in_.u16() * 4);
      case 6: {  // a second handshake
        Bytes pdu(tcp::kIcBytes);
        grant_.encode(std::span<std::byte, tcp::kIcBytes>(pdu));
        return feed(pdu);
      }
      default:
        return send_all();
    }
  }

  void submit(std::uint8_t what) {
    if (next_ == kCommandsMax || qpair_ == nullptr || qpair_->free_slots() == 0) return;
    Command& c = commands_[next_];
    static constexpr std::uint32_t kSizes[] = {512,  4,    4096, 8192,  1,
                                               8196, 1000, 513,  20000, 65536};
    c.game = this;
    c.seed = next_++;
    c.complete = &Game::completed;
    c.direction = static_cast<DataDirection>(what % 3);
    c.sqe.opcode = what & 1 ? 2 : 1;
    if ((what & 0xf8) == 0xf8) {
      c.sqe.opcode = nvme::kFabricsOpcode;
      c.sqe.nsid = static_cast<std::uint32_t>(nvme::FabricsType::connect);
    }
    if (c.direction != DataDirection::none) {
      const std::size_t before = sim::allocations();
      c.data_bytes = kSizes[what / 3 % std::size(kSizes)];
      c.buffer = std::make_unique_for_overwrite<std::byte[]>(c.data_bytes);
      c.data = c.buffer.get();
      if (wire_ != nullptr) wire_->allocations -= sim::allocations() - before;
      for (std::uint32_t i = 0; i < c.data_bytes; ++i) c.data[i] = pattern(c.seed, i);
    }
    c.submitted = true;
    qpair_->submit(c);
    NVMF_CHECK(c.completions == 0);
  }

  /// One of the commands that wait, or nothing.
  Command* waiting(DataDirection direction, bool any) {
    std::array<Command*, kCommandsMax> found;
    std::size_t n = 0;
    for (std::size_t i = 0; i < next_; ++i) {
      Command& c = commands_[i];
      if (c.completions != 0 || c.delivery != Delivery::unanswered) continue;
      if (any || c.direction == direction) found[n++] = &c;
    }
    return n == 0 ? nullptr : found[in_.below(n)];
  }

  void say(Bytes header, const Bytes& data = {}) {
    const Bytes pdu = build_pdu(std::move(header), data, to_host_, damage_);
    if (damage_.any) raw_ = true;  // what it says now is not known
    damage_ = {};
    feed(pdu);
  }

  void say_response(std::uint16_t cid, nvme::Status status) {
    Bytes header = header_of(PduType::capsule_resp, tcp::kCapsuleRespBytes);
    nvme::Cqe cqe;
    cqe.cid = cid;
    cqe.status = status;
    cqe.encode(std::span(header).subspan<tcp::kCommonHeaderBytes, nvme::kCqeBytes>());
    say(std::move(header));
  }

  void say_data(Command& c, std::uint32_t offset, std::uint32_t length, std::uint8_t flags) {
    Bytes header = header_of(PduType::c2h_data, tcp::kDataHeaderBytes, flags);
    tcp::DataHeader{.cccid = c.sqe.cid, .datao_bytes = offset, .datal_bytes = length}.encode(
        header.data());
    Bytes data(length);
    for (std::uint32_t i = 0; i < length; ++i) data[i] = pattern(c.seed, offset + i) ^ std::byte{1};
    say(std::move(header), data);
  }

  void say_r2t(Command& c, std::uint32_t offset, std::uint32_t length) {
    const std::uint16_t ttag = static_cast<std::uint16_t>(next_ttag_++ * 7);
    Bytes header = header_of(PduType::r2t, tcp::kR2tBytes);
    tcp::R2tHeader{c.sqe.cid, ttag, offset, length}.encode(header.data());
    asked_.push_back({c.sqe.cid, ttag, offset, length});
    say(std::move(header));
  }

  void answer() {
    Command* c = waiting({}, true);
    const std::uint8_t how = in_.u8();
    const std::uint16_t cid = c != nullptr && how < 230 ? c->sqe.cid : in_.u16();
    nvme::Status status;
    if ((how & 3) == 0)
      status = nvme::Status(static_cast<nvme::StatusCode>(in_.u16() & 0x7ff), false);
    say_response(cid, status);
  }

  void give_data() {
    const std::uint8_t how = in_.u8();
    Command* c = waiting(DataDirection::from_controller, how > 250);
    if (c == nullptr) return;
    const std::uint32_t left = c->data_bytes - std::min(c->received_bytes, c->data_bytes);
    std::uint32_t offset = c->received_bytes;
    std::uint32_t length = (how & 1) != 0 ? left : std::min(left, std::uint32_t{in_.u8()} * 16 + 1);
    std::uint8_t flags = length == left ? tcp::kFlagLast : std::uint8_t{0};
    if ((how & 2) != 0 && flags != 0) flags |= tcp::kFlagSuccess;
    if (how > 240) {
      offset += in_.u32();
      length = in_.u16() % 8192;
      flags = in_.u8() & 0x0c;
    }
    say_data(*c, offset, length, flags);
  }

  void ask_data() {
    const std::uint8_t how = in_.u8();
    Command* c = waiting(DataDirection::to_controller, how > 250);
    if (c == nullptr) return;
    const std::uint32_t left = c->data_bytes - std::min(c->asked_bytes, c->data_bytes);
    std::uint32_t length = (how & 1) != 0 ? left : std::min(left, std::uint32_t{in_.u8()} * 64 + 1);
    std::uint32_t offset = c->asked_bytes;
    if (how > 240) {
      offset += in_.u32();
      length = in_.u32();
    } else if (length == 0) {
      return;
    }
    c->asked_bytes = offset + length;
    say_r2t(*c, offset, length);
  }

  /// Serves one command as a good controller would.
  void serve() {
    Command* c = waiting({}, true);
    if (c == nullptr) return;
    if (c->direction == DataDirection::from_controller && c->received_bytes < c->data_bytes) {
      const bool success = in_.flag();
      say_data(*c, c->received_bytes, c->data_bytes - c->received_bytes,
               success ? tcp::kFlagLast | tcp::kFlagSuccess : tcp::kFlagLast);
      if (success) return;
    }
    const bool by_r2t = c->direction == DataDirection::to_controller &&
                        c->sqe.sgl.type == nvme::kSglTransportDataBlock;
    if (by_r2t && c->asked_bytes < c->data_bytes) {
      const std::uint32_t from = std::exchange(c->asked_bytes, c->data_bytes);
      say_r2t(*c, from, c->data_bytes - from);
      send_all();
    }
    if (c->completions == 0) say_response(c->sqe.cid, {});
  }

  /// A PDU of any type with a header that fits it and fields from the input.
  void made_up() {
    static constexpr PduType kTypes[] = {
        PduType::capsule_resp, PduType::c2h_data, PduType::r2t,        PduType::c2h_term_req,
        PduType::ic_resp,      PduType::h2c_data, PduType::capsule_cmd};
    const PduType type = in_.one_of(kTypes);
    const std::size_t hlen = type == PduType::ic_resp       ? tcp::kIcBytes
                             : type == PduType::capsule_cmd ? tcp::kCapsuleCmdBytes
                                                            : tcp::kDataHeaderBytes;
    Bytes header = header_of(type, hlen, in_.u8() & 0x0c);
    const Bytes fields = in_.bytes(16);
    std::ranges::copy(fields, header.begin() + tcp::kCommonHeaderBytes);
    raw_ = true;
    say(std::move(header), type == PduType::c2h_data ? in_.bytes(in_.u8()) : Bytes{});
  }

  void feed(const Bytes& bytes) {
    // Byte for byte where it matters: the header and a little more.
    std::span<const std::byte> rest(bytes);
    const std::size_t before = begin_watch();
    if (chunk_ < 100 && rest.size() > 400) {
      wire_->receive(rest.first(200), chunk_);
      wire_->receive(rest.subspan(200, rest.size() - 300), 3000);
      rest = rest.last(100);
    }
    wire_->receive(rest, chunk_);
    end_watch(before);
    if (ready_ && !to_host_.initialized && qpair_ != nullptr) granted(qpair_->granted());
    check_sent();
  }

  void send_all() {
    const std::size_t before = begin_watch();
    wire_->flush();
    end_watch(before);
    check_sent();
  }

  /// While all is well the engine allocates nothing.
  static constexpr std::size_t kUnwatched = ~std::size_t{0};
  [[nodiscard]] std::size_t begin_watch() const {
    return ready_ && wire_->well() ? wire_->allocations : kUnwatched;
  }
  void end_watch(std::size_t before) const {
    if (before != kUnwatched && wire_->well()) NVMF_CHECK(wire_->allocations == before);
  }

  /// What left so far is what a controller must accept.
  void check_sent() {
    std::size_t at = 0;
    while (const std::optional<SentPdu> pdu = take_sent(wire_->sent, at, to_controller_)) {
      NVMF_CHECK(!term_req_sent_);
      switch (pdu->common.type) {
        case PduType::ic_req:
          break;  // the rules below let only one pass
        case PduType::capsule_cmd:
          check_capsule(*pdu);
          break;
        case PduType::h2c_data:
          check_h2c_data(*pdu);
          break;
        case PduType::h2c_term_req:
          term_req_sent_ = true;
          NVMF_CHECK(wire_->finished);
          break;
        default:
          NVMF_CHECK(false);
      }
    }
    wire_->sent.erase(wire_->sent.begin(), wire_->sent.begin() + static_cast<std::ptrdiff_t>(at));
    check_ended_writes();
  }

  void check_capsule(const SentPdu& pdu) {
    const nvme::Sqe sqe =
        nvme::Sqe::decode(pdu.header.subspan<tcp::kCommonHeaderBytes, nvme::kSqeBytes>());
    Command* c = by_cid(sqe.cid);
    NVMF_CHECK(c != nullptr && !c->capsule_sent && c->sqe == sqe);
    c->capsule_sent = true;
    const bool inside = sqe.sgl.type == nvme::kSglDataBlockOffset;
    NVMF_CHECK(pdu.data.size() == (inside ? c->data_bytes : 0) && sqe.cid != 0xffff);
    check_data(*c, 0, pdu.data);
    if (inside) c->sent_bytes = c->data_bytes;
  }

  void check_h2c_data(const SentPdu& pdu) {
    const tcp::DataHeader header = tcp::DataHeader::decode(pdu.header.data());
    Command* c = by_cid(header.cccid);
    NVMF_CHECK(c != nullptr && c->capsule_sent && header.datao_bytes == c->sent_bytes);
    c->sent_bytes += header.datal_bytes;
    NVMF_CHECK(c->sent_bytes <= c->data_bytes);
    check_data(*c, header.datao_bytes, pdu.data);
    if (raw_) return;
    const auto asked = std::ranges::find_if(asked_, [&](const Asked& a) {
      return a.cid == header.cccid && a.ttag == header.ttag && a.left != 0;
    });
    NVMF_CHECK(asked != asked_.end() && asked->offset == header.datao_bytes);
    NVMF_CHECK(header.datal_bytes <= asked->left);
    const bool last = (pdu.common.flags & tcp::kFlagLast) != 0;
    NVMF_CHECK(last == (header.datal_bytes == asked->left));
    asked->offset += header.datal_bytes;
    asked->left -= header.datal_bytes;
  }

  static void check_data(const Command& c, std::uint32_t offset, std::span<const std::byte> data) {
    for (std::size_t i = 0; i < data.size(); ++i) {
      NVMF_CHECK(data[i] == pattern(c.seed, offset + i));
    }
  }

  /// A write is successful only if all its data has left.
  void check_ended_writes() const {
    for (std::size_t i = 0; i < next_; ++i) {
      const Command& c = commands_[i];
      if (c.completions == 0 || c.direction != DataDirection::to_controller) continue;
      if (c.delivery == Delivery::answered && c.cqe.status.ok()) {
        NVMF_CHECK(c.sent_bytes == c.data_bytes);
      }
    }
  }

  Command* by_cid(std::uint16_t cid) {
    Command* found = nullptr;
    for (std::size_t i = 0; i < next_; ++i) {
      Command& c = commands_[i];
      if (c.delivery == Delivery::not_sent || c.sqe.cid != cid) continue;
      NVMF_CHECK(found == nullptr);
      found = &c;
    }
    return found;
  }

  void end() {
    if (wire_->well() && ready_) {
      send_all();
      std::size_t open = 0;
      for (const Command& c : commands_) open += c.submitted && c.completions == 0 ? 1 : 0;
      NVMF_CHECK(!wire_->well() || qpair_->free_slots() + open == options_.queue_entries - 1);
    }
    wire_->close();
    NVMF_CHECK(ended_);
    if (qpair_ != nullptr) NVMF_CHECK(qpair_->free_slots() == 0);
    qpair_.reset();
  }

  Input in_;
  HandLoop loop_;
  std::shared_ptr<Wire> wire_;
  tcp::HostQpairOptions options_;
  tcp::IcResp grant_;
  tcp::PduRules to_host_;
  tcp::PduRules to_controller_{.controller = true};
  std::unique_ptr<tcp::HostQpair> qpair_;
  std::vector<Command> commands_;
  std::size_t next_ = 0;
  std::vector<Asked> asked_;
  std::uint32_t next_ttag_ = 1;
  bool term_req_sent_ = false;
  std::size_t chunk_ = SIZE_MAX;
  Damage damage_;
  bool raw_ = false;  // something was fed whose meaning we do not track
  bool ready_ = false;
  bool ended_ = false;
  bool again_ = false;
  bool end_in_callback_ = false;
  bool destroy_in_callback_ = false;
  std::uint8_t one_more_ = 1;
};

}  // namespace
}  // namespace nvmf::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  nvmf::fuzz::Game(nvmf::fuzz::Input(data, size)).play();
  return 0;
}
