// A hostile host against ControllerQpair alone, with a controller behind it that moves data in
// pieces of odd sizes and answers in odd orders.
//
// Whatever comes: a command is answered at most once and only if it came, R2Ts and C2HData stay
// inside their commands, data lands only where it was asked for, nothing is allocated while all is
// well, and the end comes once.
#include <bitset>
#include <map>
#include <memory>
#include <vector>

#include "fuzz/controller_games.h"
#include "fuzz/hand_loop.h"
#include "fuzz/pdu_tools.h"
#include "transport/tcp/controller_qpair.h"

namespace nvmf::fuzz {
namespace {

using tcp::PduType;

constexpr std::uint8_t kWrite = 1;
constexpr std::uint8_t kRead = 2;
constexpr std::uint8_t kHold = 3;
constexpr std::uint32_t kDataMax = 32768;

struct Work {
  transport::ControllerCommand* command = nullptr;
  std::unique_ptr<std::byte[]> piece;  // exactly as long as the piece: its borders are watched
  std::uint32_t piece_bytes = 0;
  bool moving = false;
};

struct Grant {
  std::uint16_t cid;
  std::uint16_t ttag;
  std::uint32_t offset;
  std::uint32_t left;
};

/// What the host knows of a CID.
struct Told {
  std::uint32_t capsules = 0;   // sent
  std::uint32_t answers = 0;    // received, SUCCESS included
  std::uint32_t length = 0;     // of the last one's data
  std::uint32_t r2t_bytes = 0;  // asked so far, of the command that runs
  std::uint32_t c2h_bytes = 0;
};

class EchoGame final : public transport::ControllerQpairEvents {
 public:
  explicit EchoGame(Input input) : in_(input) {}

  void play() {
    set_up();
    for (int turn = 0; turn < 400 && !in_.empty() && !wire_->closed; ++turn) step();
    wire_->flush();
    check_sent();
    wire_->close();
    NVMF_CHECK(ended_);
    qpair_.reset();
  }

  // transport::ControllerQpairEvents
  void on_command(transport::ControllerCommand& c) override {
    NVMF_CHECK(!ended_ && c.slot < work_.size());
    Work& w = work_[c.slot];
    NVMF_CHECK(w.command == nullptr && !w.moving);
    NVMF_CHECK(c.in_capsule.empty() || c.in_capsule.size() == c.data_bytes);
    if (!raw_) check_pattern(c, 0, c.in_capsule);
    w.command = &c;
    switch (c.sqe.opcode) {
      case kHold:
        return;
      case kWrite:
      case kRead:
        if (c.in_capsule.empty() && c.data_bytes != 0 && c.data_bytes <= kDataMax) return move(w);
        [[fallthrough]];
      default:
        return respond(w);
    }
  }
  void on_data_received(transport::ControllerCommand& c, bool digest_ok) override {
    Work& w = work_[c.slot];
    NVMF_CHECK(w.command == &c && w.moving && c.sqe.opcode == kWrite);
    w.moving = false;
    if (!raw_) {
      NVMF_CHECK(digest_ok);
      check_pattern(c, c.moved_bytes - w.piece_bytes, {w.piece.get(), w.piece_bytes});
    }
    if (digest_ok && c.moved_bytes < c.data_bytes) return move(w);
    respond(w);
  }
  void on_data_sent(transport::ControllerCommand& c) override {
    Work& w = work_[c.slot];
    NVMF_CHECK(w.command == &c && w.moving && c.sqe.opcode == kRead);
    w.moving = false;
    sent_bytes_[c.slot] += w.piece_bytes;
    if (sent_bytes_[c.slot] < c.data_bytes) return move(w);
    if (!success_) return respond(w);
    w.command = nullptr;
  }
  void on_ended(const Error& reason) override {
    NVMF_CHECK(!ended_ && !reason.message.empty());
    ended_ = true;
  }

 private:
  void set_up() {
    tcp::ControllerQpairOptions options;
    options.header_digest = in_.u8() != 1;
    options.data_digest = in_.u8() != 1;
    options.cpda = in_.one_of<std::uint8_t>({0, 0, 2, 31});
    options.maxh2cdata_bytes = in_.one_of<std::uint32_t>({4096, 8192, 262144});
    options.r2t_bytes = in_.one_of<std::uint32_t>({1000, 4096, 1 << 20});
    options.r2t_max = static_cast<std::uint32_t>(in_.below(4)) + 1;
    options.c2h_data_bytes = in_.one_of<std::uint32_t>({999, 4096, 1 << 20});
    entries_ = in_.one_of<std::uint32_t>({2, 3, 8, 33});
    in_capsule_bytes_ = in_.one_of<std::uint32_t>({0, 512, 8192, 16384});
    const std::uint8_t how = in_.u8();
    success_ = (how & 1) != 0;
    piece_ = (how & 2) != 0 ? 3000 : kDataMax;
    const bool flow_control = (how & 4) != 0;
    work_.resize(std::size_t{entries_} * 2);
    sent_bytes_.resize(work_.size());

    qpair_ = std::make_unique<tcp::ControllerQpair>(options, *this);
    qpair_->start(loop_, std::make_unique<HandLoop::HandIncoming>());
    wire_ = loop_.wire;
    wire_->do_open();
    to_controller_ = {.controller = true, .pda = options.cpda};
    const tcp::IcReq req{.pfv = 0,
                         .hpda = in_.one_of<std::uint8_t>({0, 0, 1, 10, 31}),
                         .hdgst = in_.flag(),
                         .ddgst = in_.flag(),
                         .maxr2t = in_.one_of<std::uint32_t>({0, 1, 3, 0xffffffff})};
    to_host_.asked_hdgst = req.hdgst;
    to_host_.asked_ddgst = req.ddgst;
    to_host_.pda = req.hpda;
    host_r2t_max_ = std::uint64_t{req.maxr2t} + 1;
    Bytes pdu(tcp::kIcBytes);
    req.encode(std::span<std::byte, tcp::kIcBytes>(pdu));
    const std::uint8_t odd = in_.u8();
    if (odd > 235) {
      blind_ = true;
      pdu[in_.below(tcp::kIcBytes)] ^= static_cast<std::byte>(in_.u8());
    }
    feed(pdu);
    if ((how & 0xf8) == 0xf8) return;  // Connect never comes
    qpair_->open_queue(entries_, in_capsule_bytes_, flow_control);
    opened_ = true;
  }

  void step() {
    switch (in_.below(16)) {
      case 0:
      case 1:
      case 2:
        return capsule();
      case 3:
      case 4:
        return data();
      case 5:
        return everything();
      case 6:
        raw_ = true;
        return feed(in_.bytes(in_.u8()));
      case 7:
        return made_up();
      case 8:
        damage_ = {true, in_.flag(), in_.u16(), static_cast<std::byte>(1 << in_.below(8))};
        return;
      case 9:
        wire_->name(in_.u8());
        return;
      case 10:
        wire_->release(in_.u16());
        return;
      case 11:
        return send_all();
      case 12:
        chunk_ = in_.one_of<std::size_t>({SIZE_MAX, 1, 7, 24, 1000});
        return;
      case 13:
        return answer_held();
      case 14:
        wire_->post();
        return;
      default:
        return special();
    }
  }

  void special() {
    switch (in_.below(10)) {
      case 0:
        return feed(
            term_req_pdu(PduType::h2c_term_req, in_.u16(), in_.u32(), in_.bytes(in_.below(129))));
      case 1:
        return wire_->eof();
      case 2:
        return qpair_->end(Error{"the fuzzer ended it"});
      case 3:
        return qpair_->finish();
      case 4:
        return wire_->close();
      default:
        return send_all();
    }
  }

  // ---- the controller

  /// Content of a command's data: named by its CID, which the host sees as well.
  static void check_pattern(const transport::ControllerCommand& c, std::uint32_t offset,
                            std::span<const std::byte> data) {
    for (std::size_t i = 0; i < data.size(); ++i) {
      NVMF_CHECK(data[i] == pattern(c.sqe.cid, offset + i));
    }
  }

  void move(Work& w) {
    transport::ControllerCommand& c = *w.command;
    const std::size_t before = sim::allocations();
    std::uint32_t& sent = sent_bytes_[c.slot];
    if (!w.moving && c.moved_bytes == 0) sent = 0;
    const std::uint32_t done = c.sqe.opcode == kRead ? sent : c.moved_bytes;
    w.piece_bytes = std::min(c.data_bytes - done, piece_);
    w.piece = std::make_unique_for_overwrite<std::byte[]>(w.piece_bytes);
    w.moving = true;
    for (std::uint32_t i = 0; i < w.piece_bytes; ++i) w.piece[i] = pattern(c.sqe.cid, done + i);
    wire_->allocations -= sim::allocations() - before;
    if (c.sqe.opcode == kWrite) {
      qpair_->receive_data(c, {w.piece.get(), w.piece_bytes});
      return;
    }
    const bool last = done + w.piece_bytes == c.data_bytes;
    qpair_->send_data(c, {w.piece.get(), w.piece_bytes}, last, last && success_);
  }

  void respond(Work& w) {
    transport::ControllerCommand& c = *std::exchange(w.command, nullptr);
    qpair_->respond(c, {}, c.sqe.cid);
  }

  void answer_held() {
    if (ended_) return;
    for (std::size_t i = 0, first = in_.u8(); i < work_.size(); ++i) {
      Work& w = work_[(first + i) % work_.size()];
      if (w.command != nullptr && !w.moving && w.command->sqe.opcode == kHold) {
        respond(w);
        return;
      }
    }
  }

  // ---- the host

  void say(Bytes header, const Bytes& data = {}) {
    const Bytes pdu = build_pdu(std::move(header), data, to_controller_, damage_);
    if (damage_.any) raw_ = true;
    damage_ = {};
    feed(pdu);
  }

  void capsule() {
    const std::uint8_t how = in_.u8();
    static constexpr std::uint32_t kLengths[] = {512, 4096, 8192, 16384, 1, 20000, 32768, 3};
    nvme::Sqe sqe;
    sqe.opcode = how & 3;
    sqe.flags = 0x40;
    sqe.cid = how < 200 ? next_cid_++ : static_cast<std::uint16_t>(in_.below(16));
    const std::uint32_t length = in_.one_of(kLengths);
    const bool inside = sqe.opcode == kWrite && length <= in_capsule_bytes_ && (how & 4) != 0;
    if (sqe.opcode == kWrite || sqe.opcode == kRead) {
      sqe.sgl = {0, length, inside ? nvme::kSglDataBlockOffset : nvme::kSglTransportDataBlock};
    }
    if (how > 240) {
      sqe.flags = in_.u8();
      sqe.sgl = {in_.u32(), in_.u32(), in_.u8()};
    }
    Bytes data(inside ? length : 0);
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = pattern(sqe.cid, i);
    Bytes header = header_of(PduType::capsule_cmd, tcp::kCapsuleCmdBytes);
    sqe.encode(std::span(header).subspan<tcp::kCommonHeaderBytes, nvme::kSqeBytes>());
    Told& told = told_[sqe.cid];
    if (told.capsules == told.answers) {
      told.length = sqe.sgl.length_bytes;
      told.r2t_bytes = 0;
      told.c2h_bytes = 0;
    } else {
      raw_ = true;  // twice the same CID: whose data comes is not told apart below
    }
    ++told.capsules;
    say(std::move(header), data);
  }

  void data() {
    if (grants_.empty()) return;
    const std::uint8_t how = in_.u8();
    const std::size_t which = how > 230 ? in_.below(grants_.size()) : 0;
    Grant& g = grants_[which];
    if (which != 0) raw_ = true;
    const std::uint32_t most = std::min(g.left, to_host_maxh2c_);
    std::uint32_t length = (how & 1) != 0 ? most : std::min(most, std::uint32_t{in_.u8()} * 8 + 1);
    std::uint32_t offset = g.offset;
    std::uint8_t flags = length == g.left ? tcp::kFlagLast : std::uint8_t{0};
    std::uint16_t cid = g.cid;
    std::uint16_t ttag = g.ttag;
    if (how > 245) {
      raw_ = true;
      offset += in_.u32();
      length = in_.u16() % 9000;
      flags = in_.u8() & 0x0c;
      cid = static_cast<std::uint16_t>(cid + in_.below(2));
      ttag = static_cast<std::uint16_t>(ttag + in_.below(4));
    }
    Bytes header = header_of(PduType::h2c_data, tcp::kDataHeaderBytes, flags);
    tcp::DataHeader{cid, ttag, offset, length}.encode(header.data());
    Bytes bytes(length);
    for (std::uint32_t i = 0; i < length; ++i) bytes[i] = pattern(cid, offset + i);
    g.offset += std::min(length, g.left);
    g.left -= std::min(length, g.left);
    if (g.left == 0) grants_.erase(grants_.begin() + static_cast<std::ptrdiff_t>(which));
    say(std::move(header), bytes);
  }

  /// As a good host would: takes all that is sent, gives all that is asked for.
  void everything() {
    for (int i = 0; i < 40; ++i) {
      send_all();
      if (grants_.empty() || !wire_->well()) return;
      Grant g = grants_.front();
      const std::uint32_t length = std::min(g.left, to_host_maxh2c_);
      Bytes header = header_of(PduType::h2c_data, tcp::kDataHeaderBytes,
                               length == g.left ? tcp::kFlagLast : std::uint8_t{0});
      tcp::DataHeader{g.cid, g.ttag, g.offset, length}.encode(header.data());
      Bytes bytes(length);
      for (std::uint32_t k = 0; k < length; ++k) bytes[k] = pattern(g.cid, g.offset + k);
      grants_.front().offset += length;
      grants_.front().left -= length;
      if (grants_.front().left == 0) grants_.erase(grants_.begin());
      say(std::move(header), bytes);
    }
  }

  void made_up() {
    static constexpr PduType kTypes[] = {PduType::capsule_cmd,  PduType::h2c_data,
                                         PduType::h2c_term_req, PduType::ic_req,
                                         PduType::r2t,          PduType::c2h_data};
    const PduType type = in_.one_of(kTypes);
    const std::size_t hlen = type == PduType::ic_req        ? tcp::kIcBytes
                             : type == PduType::capsule_cmd ? tcp::kCapsuleCmdBytes
                                                            : tcp::kDataHeaderBytes;
    Bytes header = header_of(type, hlen, in_.u8() & 0x0c);
    const Bytes fields = in_.bytes(std::min<std::size_t>(hlen - 8, 64));
    std::ranges::copy(fields, header.begin() + tcp::kCommonHeaderBytes);
    raw_ = true;
    const bool carries = type == PduType::capsule_cmd || type == PduType::h2c_data;
    say(std::move(header), carries ? in_.bytes(in_.u8()) : Bytes{});
  }

  void feed(const Bytes& bytes) {
    std::span<const std::byte> rest(bytes);
    const std::size_t before = wire_->allocations;
    const bool watch = opened_ && wire_->well();
    if (chunk_ < 100 && rest.size() > 400) {
      wire_->receive(rest.first(200), chunk_);
      wire_->receive(rest.subspan(200, rest.size() - 300), 3000);
      rest = rest.last(100);
    }
    wire_->receive(rest, chunk_);
    if (watch && wire_->well()) NVMF_CHECK(wire_->allocations == before);
  }

  void send_all() {
    const std::size_t before = wire_->allocations;
    const bool watch = opened_ && wire_->well();
    wire_->flush();
    if (watch && wire_->well()) NVMF_CHECK(wire_->allocations == before);
    check_sent();
  }

  /// What left so far is what a host must accept.
  void check_sent() {
    if (blind_) return;
    std::size_t at = 0;
    while (const std::optional<SentPdu> pdu = take_sent(wire_->sent, at, to_host_)) {
      const std::byte* header = pdu->header.data();
      switch (pdu->common.type) {
        case PduType::ic_resp: {
          const tcp::IcResp resp = tcp::IcResp::decode(header);
          to_host_.initialized = to_controller_.initialized = true;
          to_host_.hdgst = to_controller_.hdgst = resp.hdgst;
          to_host_.ddgst = to_controller_.ddgst = resp.ddgst;
          to_host_maxh2c_ = resp.maxh2cdata_bytes;
          break;
        }
        case PduType::c2h_term_req:
          NVMF_CHECK(wire_->finished && at == wire_->sent.size());
          break;
        case PduType::r2t:
          got_r2t(tcp::R2tHeader::decode(header));
          break;
        case PduType::c2h_data:
          got_data(tcp::DataHeader::decode(header), *pdu);
          break;
        case PduType::capsule_resp:
          got_answer(
              nvme::Cqe::decode(pdu->header.subspan<tcp::kCommonHeaderBytes, nvme::kCqeBytes>())
                  .cid);
          break;
        default:
          NVMF_CHECK(false);
      }
    }
    wire_->sent.erase(wire_->sent.begin(), wire_->sent.begin() + static_cast<std::ptrdiff_t>(at));
  }

  void got_answer(std::uint16_t cid) {
    std::erase_if(grants_, [cid](const Grant& g) { return g.cid == cid; });
    Told& told = told_[cid];
    ++told.answers;
    if (!raw_) NVMF_CHECK(told.answers <= told.capsules);
  }

  void got_r2t(const tcp::R2tHeader& r2t) {
    NVMF_CHECK(r2t.r2tl_bytes != 0);
    grants_.push_back({r2t.cccid, r2t.ttag, r2t.r2to_bytes, r2t.r2tl_bytes});
    if (raw_) return;
    Told& told = told_[r2t.cccid];
    NVMF_CHECK(told.capsules == told.answers + 1 && told.r2t_bytes == r2t.r2to_bytes);
    told.r2t_bytes += r2t.r2tl_bytes;
    NVMF_CHECK(told.r2t_bytes <= told.length);
    std::uint64_t open = 0;
    for (const Grant& g : grants_) open += g.cid == r2t.cccid ? 1 : 0;
    NVMF_CHECK(open <= host_r2t_max_);
  }

  void got_data(const tcp::DataHeader& data, const SentPdu& pdu) {
    if (!raw_) {
      Told& told = told_[data.cccid];
      NVMF_CHECK(told.capsules == told.answers + 1 && told.c2h_bytes == data.datao_bytes);
      told.c2h_bytes += data.datal_bytes;
      NVMF_CHECK(told.c2h_bytes <= told.length);
      const bool last = (pdu.common.flags & tcp::kFlagLast) != 0;
      NVMF_CHECK(last == (told.c2h_bytes == told.length));
    }
    for (std::size_t i = 0; i < pdu.data.size(); ++i) {
      NVMF_CHECK(pdu.data[i] == pattern(data.cccid, data.datao_bytes + i));
    }
    if ((pdu.common.flags & tcp::kFlagSuccess) != 0) got_answer(data.cccid);
  }

  Input in_;
  HandLoop loop_;
  std::shared_ptr<Wire> wire_;
  std::unique_ptr<tcp::ControllerQpair> qpair_;
  tcp::PduRules to_host_;
  tcp::PduRules to_controller_;
  std::uint32_t to_host_maxh2c_ = 4096;
  std::uint64_t host_r2t_max_ = 1;
  std::uint32_t entries_ = 2;
  std::uint32_t in_capsule_bytes_ = 0;
  std::uint32_t piece_ = kDataMax;
  bool success_ = false;
  bool opened_ = false;
  bool ended_ = false;
  bool raw_ = false;    // something was fed whose meaning we do not track
  bool blind_ = false;  // the handshake is not known
  std::vector<Work> work_;
  std::vector<std::uint32_t> sent_bytes_;  // by slot: of the read that runs
  std::map<std::uint16_t, Told> told_;     // by CID
  std::vector<Grant> grants_;
  std::uint16_t next_cid_ = 100;
  std::size_t chunk_ = SIZE_MAX;
  Damage damage_;
};

}  // namespace

void play_echo(Input input) {
  EchoGame(input).play();
}

}  // namespace nvmf::fuzz
