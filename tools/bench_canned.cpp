#include "bench_canned.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "bench_figures.h"
#include "bench_socket.h"
#include "controller/target.h"
#include "io/reactor.h"
#include "nvme/admin.h"
#include "nvme/endian.h"
#include "nvme/fabrics.h"
#include "transport/tcp/pdu.h"

namespace nvmf::tools {
namespace {

constexpr const char* kSubnqn = "nqn.2024-05.org.nvmf:canned";
constexpr std::size_t kBufferBytes = 256 * 1024;
/// Connect's capsule is the largest PDU that is relayed whole.
constexpr std::size_t kRelayedBytesMax = 16 * 1024;

using Pdu = std::vector<std::byte>;

std::optional<Pdu> read_pdu(int fd) {
  Pdu pdu(tcp::kCommonHeaderBytes);
  if (!receive_all(fd, pdu.data(), pdu.size())) return std::nullopt;
  const std::uint32_t plen = tcp::CommonHeader::decode(pdu.data()).plen;
  if (plen < pdu.size() || plen > kRelayedBytesMax) return std::nullopt;
  pdu.resize(plen);
  if (!receive_all(fd, pdu.data() + tcp::kCommonHeaderBytes, plen - tcp::kCommonHeaderBytes)) {
    return std::nullopt;
  }
  return pdu;
}

std::optional<Pdu> relay_pdu(int from, int to) {
  auto pdu = read_pdu(from);
  if (pdu && !send_all(to, pdu->data(), pdu->size())) return std::nullopt;
  return pdu;
}

/// Bytes in both directions until one side ends.
void relay(int a, int b) {
  std::vector<std::byte> buffer(64 * 1024);
  std::array<pollfd, 2> ends{{{a, POLLIN, 0}, {b, POLLIN, 0}}};
  for (;;) {
    if (::poll(ends.data(), ends.size(), -1) < 0 && errno != EINTR) return;
    for (std::size_t i = 0; i < ends.size(); ++i) {
      if (ends[i].revents == 0) continue;
      const std::size_t got = receive_some(ends[i].fd, buffer.data(), buffer.size());
      if (got == 0 || !send_all(ends[1 - i].fd, buffer.data(), got)) return;
    }
  }
}

/// One I/O queue after its Connect.
class CannedQueue {
 public:
  CannedQueue(int fd, const tcp::IcResp& agreed, const nvme::ConnectCommand& connect)
      : fd_(fd),
        agreed_(agreed),
        connect_(connect),
        flow_control_((connect.cattr & nvme::kCattrDisableSqFlowControl) == 0),
        buffer_(kBufferBytes),
        data_(controller::kTransferBytesMax),
        writes_(std::size_t{1} << 16) {
    // The most that one buffer's worth of capsules can ask for.
    headers_.reserve(kBufferBytes / tcp::kCapsuleRespBytes * 2);
    vectors_.reserve(headers_.capacity() * 2);
  }

  void serve() {
    std::size_t kept = 0;
    for (;;) {
      const std::size_t got = receive_some(fd_, buffer_.data() + kept, buffer_.size() - kept);
      if (got == 0) return;
      std::span<const std::byte> in(buffer_.data(), kept + got);
      if (!take(in) || !send_all(fd_, vectors_)) return;
      headers_.clear();
      vectors_.clear();
      kept = in.size();
      if (kept != 0) std::memmove(buffer_.data(), in.data(), kept);
    }
  }

 private:
  using Header = std::array<std::byte, tcp::kDataHeaderBytes + tcp::kDigestBytes>;

  /// Every PDU that is there, as far as it is; leaves the beginning of the next.
  bool take(std::span<const std::byte>& in) {
    for (;;) {
      const std::size_t n = std::min<std::size_t>(in.size(), skip_);
      in = in.subspan(n);
      skip_ -= static_cast<std::uint32_t>(n);
      if (skip_ != 0 || in.size() < tcp::kCommonHeaderBytes) return true;
      const tcp::CommonHeader common = tcp::CommonHeader::decode(in.data());
      if (common.plen < common.hlen || in.size() < common.hlen) return common.plen >= common.hlen;
      if (common.type == tcp::PduType::capsule_cmd && common.hlen == tcp::kCapsuleCmdBytes) {
        command(nvme::Sqe::decode(in.subspan(tcp::kCommonHeaderBytes).first<nvme::kSqeBytes>()));
      } else if (common.type == tcp::PduType::h2c_data && common.hlen == tcp::kDataHeaderBytes) {
        h2c_data(tcp::DataHeader::decode(in.data()));
      } else {
        return false;
      }
      in = in.subspan(common.hlen);
      skip_ = common.plen - common.hlen;
    }
  }

  void command(const nvme::Sqe& sqe) {
    const std::uint32_t bytes = sqe.sgl.length_bytes;
    sqhd_ = static_cast<std::uint16_t>((sqhd_ + 1u) % connect_.queue_entries);
    if (sqe.opcode == static_cast<std::uint8_t>(nvme::NvmOpcode::read)) {
      read(sqe.cid, std::min<std::uint32_t>(bytes, static_cast<std::uint32_t>(data_.size())));
    } else if (bytes != 0 && sqe.sgl.type == nvme::kSglTransportDataBlock) {
      writes_[sqe.cid] = bytes;
      tcp::R2tHeader{.cccid = sqe.cid, .ttag = sqe.cid, .r2to_bytes = 0, .r2tl_bytes = bytes}
          .encode(begin(tcp::PduType::r2t, 0, 0));
      end();
    } else {
      respond(sqe.cid);
    }
  }

  void read(std::uint16_t cid, std::uint32_t bytes) {
    const auto flags =
        static_cast<std::uint8_t>(tcp::kFlagLast | (flow_control_ ? 0 : tcp::kFlagSuccess) |
                                  (agreed_.ddgst ? tcp::kFlagDdgst : 0));
    tcp::DataHeader{.cccid = cid, .ttag = 0, .datao_bytes = 0, .datal_bytes = bytes}.encode(
        begin(tcp::PduType::c2h_data, flags, bytes));
    end();
    vectors_.push_back({data_.data(), bytes});
    if (agreed_.ddgst) {
      if (digest_of_bytes_ != bytes) {
        store_le32(digest_.data(), tcp::crc32c({data_.data(), bytes}));
        digest_of_bytes_ = bytes;
      }
      vectors_.push_back({digest_.data(), digest_.size()});
    }
    if (flow_control_) respond(cid);
  }

  void h2c_data(const tcp::DataHeader& data) {
    std::uint32_t& left = writes_[data.cccid];
    left -= std::min(left, data.datal_bytes);
    if (left == 0) respond(data.cccid);
  }

  void respond(std::uint16_t cid) {
    nvme::Cqe cqe;
    cqe.cid = cid;
    cqe.sqhd = flow_control_ ? sqhd_ : nvme::kSqhdFlowControlOff;
    std::byte* const header = begin(tcp::PduType::capsule_resp, 0, 0);
    cqe.encode(
        std::span<std::byte, nvme::kCqeBytes>(header + tcp::kCommonHeaderBytes, nvme::kCqeBytes));
    end();
  }

  /// A header of 24 bytes, its common part filled in.
  std::byte* begin(tcp::PduType type, std::uint8_t flags, std::uint32_t data_bytes) {
    const std::size_t head = tcp::kDataHeaderBytes + (agreed_.hdgst ? tcp::kDigestBytes : 0);
    const std::size_t digest = data_bytes != 0 && agreed_.ddgst ? tcp::kDigestBytes : 0;
    std::byte* const header = headers_.emplace_back().data();
    tcp::CommonHeader{
        .type = type,
        .flags = static_cast<std::uint8_t>(flags | (agreed_.hdgst ? tcp::kFlagHdgst : 0)),
        .hlen = tcp::kDataHeaderBytes,
        .pdo = static_cast<std::uint8_t>(data_bytes != 0 ? head : 0),
        .plen = static_cast<std::uint32_t>(head + data_bytes + digest)}
        .encode(header);
    return header;
  }

  /// The header begun last is complete.
  void end() {
    Header& header = headers_.back();
    std::size_t bytes = tcp::kDataHeaderBytes;
    if (agreed_.hdgst) {
      store_le32(header.data() + bytes, tcp::crc32c({header.data(), bytes}));
      bytes += tcp::kDigestBytes;
    }
    vectors_.push_back({header.data(), bytes});
  }

  int fd_;
  tcp::IcResp agreed_;
  nvme::ConnectCommand connect_;
  bool flow_control_;
  std::vector<std::byte> buffer_;
  std::vector<std::byte> data_;
  std::vector<std::uint32_t> writes_;  // by CID: bytes that are still to come
  std::vector<Header> headers_;
  std::vector<iovec> vectors_;
  std::uint32_t skip_ = 0;
  std::uint16_t sqhd_ = 0;
  std::uint32_t digest_of_bytes_ = 0;
  std::array<std::byte, tcp::kDigestBytes> digest_{};
};

/// One connection of the host's, from its ICReq to its end.
void serve(io::UniqueFd host, std::uint16_t target_port) {
  auto target = connect_loopback(target_port);
  if (!target || !relay_pdu(host.get(), target->get())) return;
  const auto ic_resp = relay_pdu(target->get(), host.get());
  if (!ic_resp || ic_resp->size() < tcp::kIcBytes) return;
  const auto capsule = relay_pdu(host.get(), target->get());
  if (!capsule || capsule->size() < tcp::kCapsuleCmdBytes) return;
  const auto connect =
      nvme::ConnectCommand::from_sqe(nvme::Sqe::decode(std::span<const std::byte>(*capsule)
                                                           .subspan(tcp::kCommonHeaderBytes)
                                                           .first<nvme::kSqeBytes>()));
  if (connect.qid != 0 && connect.queue_entries != 0) {
    if (!relay_pdu(target->get(), host.get())) return;
    CannedQueue(host.get(), tcp::IcResp::decode(ic_resp->data()), connect).serve();
    return;
  }
  relay(host.get(), target->get());
}

/// The child process; never returns.
[[noreturn]] void respond(io::UniqueFd listener) {
  auto reactor = io::make_reactor();
  controller::TargetConfig config;
  config.subsystems.push_back({.nqn = kSubnqn,
                               .namespaces = {{.size_bytes = std::uint64_t{1} << 40}},
                               .hosts = {},
                               .serial = {}});
  if (!reactor) ::_exit(1);
  auto target = controller::Target::create(**reactor, config);
  if (!target) ::_exit(1);
  const auto at = (*target)->listen({.host = "127.0.0.1", .port = 0, .unix_path = {}});
  if (!at) ::_exit(1);
  std::thread([&reactor] { (*reactor)->run(); }).detach();
  for (;;) {
    auto host = accept_loopback(listener.get());
    if (!host) ::_exit(1);
    std::thread([fd = std::move(*host), port = at->port]() mutable {
      serve(std::move(fd), port);
    }).detach();
  }
}

}  // namespace

Result<CannedResponder> CannedResponder::start() {
  CannedResponder made;
  auto listener = listen_loopback(made.port_);
  if (!listener) return std::unexpected(listener.error());
  made.pid_ = ::fork();
  if (made.pid_ < 0) return fail(fmt::format("cannot fork: {}", std::strerror(errno)), errno);
  if (made.pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    respond(std::move(*listener));
  }
  return made;
}

CannedResponder::CannedResponder(CannedResponder&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), port_(other.port_) {}

CannedResponder::~CannedResponder() {
  end();
}

const char* CannedResponder::subnqn() {
  return kSubnqn;
}

double CannedResponder::end() {
  if (pid_ <= 0) return 0;
  ::kill(pid_, SIGKILL);
  return wait_for_child(std::exchange(pid_, -1));
}

}  // namespace nvmf::tools
