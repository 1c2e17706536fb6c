// Hostile hosts against a whole target in virtual time: real Connects and made-up ones, properties,
// admin and I/O commands with any fields, data that does not come, connections that vanish.
//
// Whatever comes: what the target sends is well formed, no command is answered that did not come or
// twice, and when the hosts are gone the target is empty: no connection, no controller, all buffers
// back, and it can be stopped.
#include <array>
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "controller/target.h"
#include "fuzz/controller_games.h"
#include "fuzz/pdu_tools.h"
#include "nvme/admin.h"
#include "nvme/fabrics.h"
#include "nvme/log_pages.h"
#include "sim/virtual_loop.h"

namespace nvmf::fuzz {
namespace {

using namespace std::chrono_literals;
using tcp::PduType;

constexpr const char* kNqn = "nqn.2026-01.org.example:fuzz";
constexpr const char* kHost = "nqn.2026-01.org.example:host";
constexpr std::size_t kPeersMax = 4;

/// One connection of a hostile host.
class Peer final : public transport::StreamUser {
 public:
  std::unique_ptr<transport::Stream> stream;
  bool closed = false;
  bool reading = true;
  bool serving = false;  // answers R2Ts by itself, as it should
  std::uint16_t qid = 0;
  std::uint16_t cntlid = nvme::kCntlidDynamic;
  tcp::PduRules to_host;
  tcp::PduRules to_controller{.controller = true};
  bool raw = false;    // something was sent whose meaning is not tracked
  bool blind = false;  // nor is the handshake known
  std::uint16_t next_cid = 1;
  std::map<std::uint16_t, int> outstanding;
  std::uint16_t connect_cid = 0;
  std::deque<tcp::R2tHeader> r2ts;

  void send(Bytes bytes) {
    if (closed || bytes.empty() || queued_ > kQueuedMax) return;
    queued_ += bytes.size();
    out_.push_back(std::move(bytes));
    stream->wake();
  }
  void read_again() {
    reading = true;
    if (!closed) stream->wake();
  }

  // transport::StreamUser
  void on_open(transport::Stream&) override {}
  std::size_t recv_vectors(std::span<iovec> out) override {
    if (!reading && !named_) return 0;  // a place that was named stays
    named_ = true;
    out[0] = {place_.data(), place_.size()};
    return 1;
  }
  void recv_advance(std::size_t bytes) override {
    named_ = false;
    in_.insert(in_.end(), place_.begin(), place_.begin() + static_cast<std::ptrdiff_t>(bytes));
    if (!blind) check();
    if (blind) in_.clear();
  }
  std::size_t send_vectors(std::span<iovec> out) override {
    std::size_t n = 0;
    std::size_t skip = sent_;
    for (Bytes& b : out_) {
      if (n == out.size()) break;
      out[n++] = {b.data() + skip, b.size() - skip};
      skip = 0;
    }
    return n;
  }
  void send_advance(std::size_t bytes) override {
    sent_ += bytes;
    while (!out_.empty() && sent_ >= out_.front().size()) {
      sent_ -= out_.front().size();
      queued_ -= out_.front().size();
      out_.pop_front();
    }
  }
  void on_eof() override {}
  void on_closed(const Error&) override { closed = true; }

  void serve(const tcp::R2tHeader& r2t) {
    const std::uint32_t length = std::min(r2t.r2tl_bytes, std::uint32_t{262144});
    Bytes header = header_of(PduType::h2c_data, tcp::kDataHeaderBytes, tcp::kFlagLast);
    tcp::DataHeader{r2t.cccid, r2t.ttag, r2t.r2to_bytes, length}.encode(header.data());
    send(build_pdu(std::move(header), Bytes(length), to_controller));
  }

 private:
  static constexpr std::size_t kQueuedMax = 1 << 20;

  void check() {
    std::size_t at = 0;
    while (const std::optional<SentPdu> pdu = take_sent(in_, at, to_host)) {
      const std::byte* header = pdu->header.data();
      switch (pdu->common.type) {
        case PduType::ic_resp: {
          const tcp::IcResp resp = tcp::IcResp::decode(header);
          to_host.initialized = to_controller.initialized = true;
          to_host.hdgst = to_controller.hdgst = resp.hdgst;
          to_host.ddgst = to_controller.ddgst = resp.ddgst;
          to_controller.pda = resp.cpda;
          break;
        }
        case PduType::r2t: {
          const tcp::R2tHeader r2t = tcp::R2tHeader::decode(header);
          NVMF_CHECK(raw || outstanding[r2t.cccid] == 1);
          if (serving) {
            serve(r2t);
          } else if (r2ts.size() < 64) {
            r2ts.push_back(r2t);
          }
          break;
        }
        case PduType::c2h_data: {
          const std::uint16_t cid = tcp::DataHeader::decode(header).cccid;
          NVMF_CHECK(raw || outstanding[cid] == 1);
          if ((pdu->common.flags & tcp::kFlagSuccess) != 0) answered(cid);
          break;
        }
        case PduType::capsule_resp: {
          const nvme::Cqe cqe =
              nvme::Cqe::decode(pdu->header.subspan<tcp::kCommonHeaderBytes, nvme::kCqeBytes>());
          answered(cqe.cid);
          if (cqe.cid == connect_cid && connect_cid != 0 && cqe.status.ok()) {
            cntlid = nvme::ConnectResponse::decode(cqe.result).cntlid;
          }
          break;
        }
        default:
          NVMF_CHECK(pdu->common.type == PduType::c2h_term_req && at == in_.size());
      }
    }
    in_.erase(in_.begin(), in_.begin() + static_cast<std::ptrdiff_t>(at));
  }
  void answered(std::uint16_t cid) {
    int& left = outstanding[cid];
    NVMF_CHECK(raw || left > 0);
    left = std::max(left - 1, 0);
  }

  std::array<std::byte, 16384> place_{};
  bool named_ = false;
  Bytes in_;
  std::deque<Bytes> out_;
  std::size_t sent_ = 0;
  std::size_t queued_ = 0;
};

class TargetGame {
 public:
  explicit TargetGame(Input input) : in_(input) {}

  void play() {
    set_up();
    for (int turn = 0; turn < 200 && !in_.empty(); ++turn) step();
    end();
  }

 private:
  void set_up() {
    const std::uint8_t how = in_.u8();
    controller::TargetConfig config;
    controller::SubsystemConfig subsystem;
    subsystem.nqn = kNqn;
    controller::NamespaceConfig disk;
    disk.size_bytes = 1 << 20;
    subsystem.namespaces.push_back(disk);
    disk.block_bytes = 4096;
    disk.size_bytes = 256 << 10;
    subsystem.namespaces.push_back(disk);
    if ((how & 1) != 0) {
      controller::NamespaceConfig file;
      file.kind = controller::NamespaceConfig::Kind::file;
      file.path = "/disk";
      loop_.register_file(file.path, Bytes(128 << 10));
      loop_.file_latency = 3ms;
      subsystem.namespaces.push_back(file);
    }
    if ((how & 2) != 0) subsystem.hosts.emplace_back(kHost);
    config.subsystems.push_back(std::move(subsystem));
    config.max_queues = 2;
    config.queue_entries = 16;
    config.in_capsule_bytes = (how & 4) != 0 ? 0 : 4096;
    if ((how & 8) != 0) {
      loop_.pipe = {
          .max_chunk = 100, .random_split = true, .latency = 100us, .post_receives = true};
    }
    auto made = controller::Target::create(loop_, std::move(config));
    NVMF_CHECK(made.has_value());
    target_ = std::move(*made);
    NVMF_CHECK(target_->listen(at_).has_value());
    // Most programs begin with an association.
    if ((how & 0x70) != 0) associate();
  }

  void step() {
    switch (in_.below(20)) {
      case 0:
        return connect_tcp();
      case 1:
        return connect();
      case 2:
        return property();
      case 3:
      case 4:
      case 5:
        return admin();
      case 6:
      case 7:
      case 8:
      case 9:
        return io();
      case 10:
        return any_command();
      case 11:
        return data();
      case 12:
        return raw();
      case 13:
        return made_up();
      case 14:
        damage_ = {true, in_.flag(), in_.u16(), static_cast<std::byte>(1 << in_.below(8))};
        return;
      case 15:
        current_ = in_.below(kPeersMax);
        return;
      case 16:
      case 17:
        return loop_.run_until_idle();
      case 18:
        return loop_.run_for(in_.one_of<Duration>({1ms, 10ms, 300ms, 3s, 130s}));
      default:
        return special();
    }
  }

  void special() {
    Peer* p = peer();
    if (p == nullptr) return;
    switch (in_.below(8)) {
      case 0:
        p->closed ? void() : p->stream->reset(Error{"the fuzzer reset it"});
        return;
      case 1:
        p->closed ? void() : p->stream->finish(1s);
        return;
      case 2:
        p->reading = false;
        return;
      case 3:
        p->read_again();
        return;
      case 4:
        p->serving = !p->serving;
        return;
      case 5: {
        if (added_++ > 3) return;
        controller::NamespaceConfig disk;
        disk.size_bytes = 64 << 10;
        NVMF_CHECK(target_->add_namespace(kNqn, disk).has_value());
        return;
      }
      case 6:
        p->send(
            term_req_pdu(PduType::h2c_term_req, in_.u16(), in_.u32(), in_.bytes(in_.below(129))));
        return;
      default:
        return associate();
    }
  }

  Peer* peer() { return peers_[current_].get(); }

  void associate() {
    connect_tcp();
    connect_command(0, 32, 0, kNqn, kHost, nvme::kCntlidDynamic);
    loop_.run_for(5ms);
    if (peer() != nullptr) command(nvme::property_set(nvme::Property::cc, 0x00460001), {}, 0);
    loop_.run_for(5ms);
    const std::uint16_t cntlid = peer() != nullptr ? peer()->cntlid : nvme::kCntlidDynamic;
    current_ = (current_ + 1) % kPeersMax;
    connect_tcp();
    if (peer() != nullptr) peer()->qid = 1;
    connect_command(1, 16, 0, kNqn, kHost, cntlid);
    loop_.run_for(5ms);
  }

  void connect_tcp() {
    const std::uint8_t how = in_.u8();
    std::unique_ptr<Peer>& p = peers_[current_];
    if (p != nullptr && !p->closed) {
      p->stream->reset(Error{"replaced"});
      loop_.run_until_idle();
      if (!p->closed) return;
    }
    p = std::make_unique<Peer>();
    p->stream = loop_.connect(at_, {}, *p);
    p->serving = (how & 1) != 0;
    p->to_host = {.asked_hdgst = (how & 2) != 0, .asked_ddgst = (how & 4) != 0};
    const tcp::IcReq req{.pfv = 0,
                         .hpda = static_cast<std::uint8_t>((how & 8) != 0 ? 31 : 0),
                         .hdgst = p->to_host.asked_hdgst,
                         .ddgst = p->to_host.asked_ddgst,
                         .maxr2t = (how & 16) != 0 ? 0u : 15u};
    p->to_host.pda = req.hpda;
    Bytes pdu(tcp::kIcBytes);
    req.encode(std::span<std::byte, tcp::kIcBytes>(pdu));
    if (how > 245) return;  // whatever comes first comes from the program
    p->send(std::move(pdu));
    loop_.run_for(5ms);
  }

  void connect() {
    const std::uint8_t how = in_.u8();
    Peer* p = peer();
    if (p == nullptr) return;
    static constexpr const char* kNames[] = {
        kNqn, kNqn, kNqn, "nqn.2014-08.org.nvmexpress.discovery", "nqn.2026-01.org.example:none",
        "",   "x"};
    static constexpr const char* kHosts[] = {kHost, kHost, "nqn.2026-01.org.example:other", ""};
    std::uint16_t cntlid = (how & 1) != 0 ? nvme::kCntlidDynamic : std::uint16_t{1};
    for (const auto& other : peers_) {
      if ((how & 2) != 0 && other != nullptr && other->qid == 0) cntlid = other->cntlid;
    }
    const auto qid = static_cast<std::uint16_t>(in_.below(4));
    p->qid = qid;
    connect_command(qid, in_.one_of<std::uint16_t>({16, 32, 2, 1, 128, 1024, 65535}), how & 4,
                    in_.one_of(kNames), in_.one_of(kHosts), cntlid);
  }

  void connect_command(std::uint16_t qid, std::uint32_t entries, std::uint8_t cattr,
                       const char* subnqn, const char* hostnqn, std::uint16_t cntlid) {
    Peer* p = peer();
    if (p == nullptr) return;
    nvme::ConnectData data{.cntlid = cntlid, .subnqn = subnqn, .hostnqn = hostnqn};
    data.hostid[3] = std::byte{7};
    Bytes bytes(nvme::kConnectDataBytes);
    data.encode(std::span<std::byte, nvme::kConnectDataBytes>(bytes));
    const nvme::ConnectCommand connect{.recfmt = 0,
                                       .qid = qid,
                                       .queue_entries = entries,
                                       .cattr = cattr,
                                       .kato_ms = in_.one_of<std::uint32_t>({0, 0, 100, 5000})};
    p->connect_cid = p->next_cid;
    command(connect.to_sqe(), bytes, static_cast<std::uint32_t>(bytes.size()));
  }

  void property() {
    nvme::PropertyCommand command_;
    command_.offset = in_.one_of<std::uint32_t>({0, 8, 0x14, 0x1c, 0x20, 0x64, 0x68, 4, 0x30});
    command_.eight_bytes = in_.flag();
    command_.value = in_.one_of<std::uint32_t>(
        {0x00460001, 0, 0x00464001, 0x00468001, 1, 0x4e564d65, 0x00460071});
    command(in_.flag() ? command_.to_set() : command_.to_get(), {}, 0);
  }

  void admin() {
    static constexpr std::uint8_t kOpcodes[] = {0x06, 0x02, 0x0a, 0x09, 0x0c, 0x18,
                                                0x08, 0x0d, 0x80, 0x00, 0x7f};
    nvme::Sqe sqe;
    sqe.opcode = in_.one_of(kOpcodes);
    sqe.nsid = in_.one_of<std::uint32_t>({0, 1, 2, 0xffffffff, 3, 9, 8, 4, 5});
    static constexpr std::uint32_t kLengths[] = {0, 4096, 512, 64, 16, 8, 65536, 1024};
    const std::uint32_t length = in_.one_of(kLengths);
    if (sqe.opcode == 0x02) {
      nvme::GetLogPage get;
      get.page =
          static_cast<nvme::LogPage>(in_.one_of<std::uint8_t>({1, 2, 3, 4, 5, 0x70, 0x0c, 0}));
      get.length_bytes = std::max(length, 4u);
      get.offset_bytes = in_.one_of<std::uint32_t>({0, 0, 4, 4096, 0xfffffffc});
      get.retain_event = in_.flag();
      const std::uint32_t nsid = sqe.nsid;
      sqe = get.to_sqe();
      sqe.nsid = nsid;
      sqe.cdw10 ^= in_.u16();
    } else {
      sqe.cdw10 = in_.u16();
      sqe.cdw11 = in_.u16() | (in_.flag() ? 0x01000000u : 0u);
    }
    if (sqe.opcode == 0x09 && length != 0) return command(sqe, Bytes(length), length);
    command(sqe, {}, length);
  }

  void io() {
    static constexpr std::uint8_t kOpcodes[] = {0x02, 0x01, 0x02, 0x01, 0x00,
                                                0x05, 0x08, 0x09, 0x7f};
    static constexpr std::uint32_t kBlocks[] = {1, 8, 2, 128, 256, 1024, 2048, 65536};
    nvme::Sqe sqe;
    sqe.opcode = in_.one_of(kOpcodes);
    sqe.nsid = in_.one_of<std::uint32_t>({1, 1, 2, 3, 0xffffffff, 0, 4});
    const std::uint32_t blocks = in_.one_of(kBlocks);
    const std::uint32_t block_bytes = sqe.nsid == 2 ? 4096 : 512;
    sqe.set_slba(in_.u16() % 2050);
    sqe.cdw12 =
        (blocks - 1) | (in_.flag() ? nvme::kCdw12Fua : 0) | (in_.flag() ? nvme::kCdw12Deac : 0);
    std::uint32_t length = blocks * block_bytes;
    if (sqe.opcode == 0x00 || sqe.opcode == 0x08) length = 0;
    if (sqe.opcode == 0x7f) {
      sqe = nvme::disconnect_command();
      length = 0;
    }
    if (sqe.opcode == 0x09) {
      const std::uint32_t ranges = static_cast<std::uint32_t>(in_.below(4)) + 1;
      sqe.cdw10 = ranges - 1;
      sqe.cdw11 = nvme::kCdw11DsmDeallocate;
      Bytes data(ranges * nvme::kDsmRangeBytes);
      for (std::size_t i = 0; i < ranges; ++i) {
        nvme::DsmRange{0, in_.u16(), in_.u16()}.encode(std::span<std::byte, nvme::kDsmRangeBytes>(
            data.data() + i * nvme::kDsmRangeBytes, nvme::kDsmRangeBytes));
      }
      return command(sqe, data, static_cast<std::uint32_t>(data.size()));
    }
    if (in_.u8() > 240) length = in_.u32();
    const bool inside = (sqe.opcode == 0x01 || sqe.opcode == 0x05) && length <= 4096 && in_.flag();
    command(sqe, Bytes(inside ? length : 0), length);
  }

  void any_command() {
    nvme::Sqe sqe;
    const Bytes fields = in_.bytes(nvme::kSqeBytes);
    std::array<std::byte, nvme::kSqeBytes> bytes{};
    std::ranges::copy(fields, bytes.begin());
    sqe = nvme::Sqe::decode(bytes);
    Peer* p = peer();
    if (p == nullptr) return;
    Bytes header = header_of(PduType::capsule_cmd, tcp::kCapsuleCmdBytes);
    sqe.encode(std::span(header).subspan<tcp::kCommonHeaderBytes, nvme::kSqeBytes>());
    ++p->outstanding[sqe.cid];
    p->raw = true;  // the CID may be in use
    say(*p, std::move(header), in_.flag() ? Bytes(in_.u16()) : Bytes{});
  }

  /// `inside`: data that goes in the capsule; else `length` says how much is to be moved.
  void command(nvme::Sqe sqe, const Bytes& inside, std::uint32_t length) {
    Peer* p = peer();
    if (p == nullptr) return;
    sqe.cid = p->next_cid++;
    sqe.flags = 0x40;
    sqe.sgl = {0, length,
               inside.empty() ? nvme::kSglTransportDataBlock : nvme::kSglDataBlockOffset};
    Bytes header = header_of(PduType::capsule_cmd, tcp::kCapsuleCmdBytes);
    sqe.encode(std::span(header).subspan<tcp::kCommonHeaderBytes, nvme::kSqeBytes>());
    ++p->outstanding[sqe.cid];
    say(*p, std::move(header), inside);
  }

  void say(Peer& p, Bytes header, const Bytes& data) {
    if (damage_.any) p.raw = true;
    p.send(build_pdu(std::move(header), data, p.to_controller, std::exchange(damage_, {})));
  }

  void data() {
    Peer* p = peer();
    if (p == nullptr || p->r2ts.empty()) return;
    tcp::R2tHeader r2t = p->r2ts.front();
    p->r2ts.pop_front();
    const std::uint8_t how = in_.u8();
    if (how < 200) return p->serve(r2t);
    p->raw = true;
    Bytes header = header_of(PduType::h2c_data, tcp::kDataHeaderBytes, in_.u8() & 0x0c);
    const std::uint32_t length = in_.u16() % 5000;
    tcp::DataHeader{r2t.cccid, static_cast<std::uint16_t>(r2t.ttag + in_.below(3)),
                    r2t.r2to_bytes + static_cast<std::uint32_t>(in_.below(3)) * 512, length}
        .encode(header.data());
    say(*p, std::move(header), Bytes(length));
  }

  void raw() {
    Peer* p = peer();
    if (p == nullptr) return;
    if (!p->to_host.initialized) p->blind = true;
    p->raw = true;
    p->send(in_.bytes(in_.u8()));
  }

  void made_up() {
    Peer* p = peer();
    if (p == nullptr) return;
    if (!p->to_host.initialized) p->blind = true;
    p->raw = true;
    static constexpr PduType kTypes[] = {PduType::h2c_data, PduType::capsule_cmd, PduType::ic_req};
    const PduType type = in_.one_of(kTypes);
    const std::size_t hlen = type == PduType::ic_req        ? tcp::kIcBytes
                             : type == PduType::capsule_cmd ? tcp::kCapsuleCmdBytes
                                                            : tcp::kDataHeaderBytes;
    Bytes header = header_of(type, hlen, in_.u8() & 0x0c);
    const Bytes fields = in_.bytes(std::min<std::size_t>(hlen - 8, 64));
    std::ranges::copy(fields, header.begin() + tcp::kCommonHeaderBytes);
    say(*p, std::move(header), in_.bytes(in_.u8()));
  }

  void end() {
    damage_ = {};
    for (const auto& p : peers_) {
      if (p != nullptr && !p->closed) p->stream->reset(Error{"the fuzzer is done"});
    }
    loop_.run_for(1s);
    NVMF_CHECK(target_->connection_count() == 0);
    bool stopped = false;
    target_->stop([&](Result<void> done) {
      NVMF_CHECK(done.has_value());
      stopped = true;
    });
    NVMF_CHECK(loop_.run_until([&] { return stopped; }, 6s));
    NVMF_CHECK(target_->connection_count() == 0 && target_->controller_count() == 0);
    NVMF_CHECK(target_->buffers().free_count() == target_->buffers().count());
    target_.reset();
    for (const auto& p : peers_) NVMF_CHECK(p == nullptr || p->closed);
  }

  Input in_;
  sim::VirtualLoop loop_{1};
  transport::Endpoint at_{"127.0.0.1", 4420, ""};
  std::unique_ptr<controller::Target> target_;
  std::array<std::unique_ptr<Peer>, kPeersMax> peers_;
  std::size_t current_ = 0;
  int added_ = 0;
  Damage damage_;
};

}  // namespace

void play_target(Input input) {
  TargetGame(input).play();
}

}  // namespace nvmf::fuzz
