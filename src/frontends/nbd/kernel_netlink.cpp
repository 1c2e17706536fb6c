#include "frontends/nbd/kernel_netlink.h"

#include <fmt/format.h>
#include <linux/nbd-netlink.h>
#include <netlink/attr.h>
#include <netlink/errno.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "frontends/nbd/protocol.h"
#include "nvme/check.h"

namespace nvmf::nbd {
namespace {

static_assert(static_cast<int>(KernelCommand::connect) == NBD_CMD_CONNECT);
static_assert(static_cast<int>(KernelCommand::disconnect) == NBD_CMD_DISCONNECT);
static_assert(static_cast<int>(KernelCommand::reconfigure) == NBD_CMD_RECONFIGURE);

/// A device with as many sockets as anybody gives it, and a name that sysfs can show.
constexpr std::size_t kMessageBytesMax = 8192;

struct FreeMessage {
  void operator()(nl_msg* message) const { ::nlmsg_free(message); }
};
using Message = std::unique_ptr<nl_msg, FreeMessage>;

struct FreeSocket {
  void operator()(nl_sock* socket) const { ::nl_socket_free(socket); }
};
struct PutCallbacks {
  void operator()(nl_cb* callbacks) const { ::nl_cb_put(callbacks); }
};

void put_sockets(nl_msg* message, const std::vector<int>& sockets) {
  nlattr* list = ::nla_nest_start(message, NBD_ATTR_SOCKETS);
  NVMF_CHECK(list != nullptr);
  for (const int fd : sockets) {
    nlattr* item = ::nla_nest_start(message, NBD_SOCK_ITEM);
    NVMF_CHECK(item != nullptr);
    NVMF_CHECK(::nla_put_u32(message, NBD_SOCK_FD, static_cast<std::uint32_t>(fd)) == 0);
    ::nla_nest_end(message, item);
  }
  ::nla_nest_end(message, list);
}

Message make_message(KernelCommand command, const KernelConfig& config, int family) {
  Message message(::nlmsg_alloc_size(kMessageBytesMax));
  NVMF_CHECK(message != nullptr);
  NVMF_CHECK(::genlmsg_put(message.get(), 0, 0, family, 0, 0, static_cast<std::uint8_t>(command),
                           NBD_GENL_VERSION) != nullptr);
  const auto put = [&](int attribute, const std::optional<std::uint64_t>& value) {
    if (value) NVMF_CHECK(::nla_put_u64(message.get(), attribute, *value) == 0);
  };
  if (config.index) {
    NVMF_CHECK(::nla_put_u32(message.get(), NBD_ATTR_INDEX, *config.index) == 0);
  }
  put(NBD_ATTR_SIZE_BYTES, config.size_bytes);
  put(NBD_ATTR_BLOCK_SIZE_BYTES, config.block_bytes);
  put(NBD_ATTR_TIMEOUT, config.timeout_s);
  put(NBD_ATTR_SERVER_FLAGS, config.server_flags);
  put(NBD_ATTR_CLIENT_FLAGS, config.client_flags);
  if (!config.sockets.empty()) put_sockets(message.get(), config.sockets);
  put(NBD_ATTR_DEAD_CONN_TIMEOUT, config.dead_conn_timeout_s);
  if (!config.backend.empty()) {
    NVMF_CHECK(
        ::nla_put_string(message.get(), NBD_ATTR_BACKEND_IDENTIFIER, config.backend.c_str()) == 0);
  }
  return message;
}

std::optional<std::uint32_t> index_in(nlmsghdr* header) {
  std::array<nlattr*, NBD_ATTR_MAX + 1> attributes{};
  std::array<nla_policy, NBD_ATTR_MAX + 1> policy{};
  policy[NBD_ATTR_INDEX].type = NLA_U32;
  if (::genlmsg_valid_hdr(header, 0) == 0 || ::genlmsg_hdr(header)->cmd != NBD_CMD_CONNECT ||
      ::genlmsg_parse(header, 0, attributes.data(), NBD_ATTR_MAX, policy.data()) != 0 ||
      attributes[NBD_ATTR_INDEX] == nullptr) {
    return std::nullopt;
  }
  return ::nla_get_u32(attributes[NBD_ATTR_INDEX]);
}

std::unexpected<Error> refused(std::string_view what, int code) {
  std::string hint;
  if (code == EPERM || code == EACCES) {
    hint =
        ": the kernel's devices need root (CAP_SYS_ADMIN); without it --nbd serves the same "
        "namespaces to every NBD client, and --fuse shows them as files";
  }
  return fail(
      fmt::format("the kernel's NBD driver refuses to {}: {}{}", what, std::strerror(code), hint),
      code);
}

class NetlinkNbd final : public KernelNbd {
 public:
  Result<void> open() {
    if (socket_ == nullptr) return fail("no memory for a netlink socket", ENOMEM);
    if (const int code = ::genl_connect(socket_.get()); code < 0) {
      return fail(fmt::format("cannot open a netlink socket: {}", ::nl_geterror(code)), EIO);
    }
    family_ = ::genl_ctrl_resolve(socket_.get(), NBD_GENL_FAMILY_NAME);
    if (family_ < 0) {
      return fail(
          "the kernel has no NBD driver now: load its module (modprobe nbd), or serve with --nbd "
          "or --fuse, which need none",
          ENOENT);
    }
    return {};
  }

  Result<std::uint32_t> connect(const KernelConfig& config) override {
    Answer answer;
    if (const int code = ask(KernelCommand::connect, config, answer); code != 0) {
      return refused("make a device", code);
    }
    // Every driver of version 1 tells it.
    if (!answer.index) return fail("the kernel does not say which device it has made", EPROTO);
    return *answer.index;
  }
  Result<void> reconfigure(const KernelConfig& config) override {
    Answer answer;
    const int code = ask(KernelCommand::reconfigure, config, answer);
    if (code != 0) {
      return refused(fmt::format("change /dev/nbd{}", config.index.value_or(0)), code);
    }
    return {};
  }
  Result<void> disconnect(std::uint32_t index) override {
    Answer answer;
    const int code = ask(KernelCommand::disconnect, {.index = index}, answer);
    if (code != 0) return refused(fmt::format("disconnect /dev/nbd{}", index), code);
    return {};
  }

 private:
  struct Answer {
    std::optional<std::uint32_t> index;
    bool done = false;
    int error = 0;
  };

  /// 0, or an errno.
  int ask(KernelCommand command, const KernelConfig& config, Answer& answer) {
    const Message message = make_message(command, config, family_);
    if (const int code = ::nl_send_auto(socket_.get(), message.get()); code < 0) return EIO;
    const std::unique_ptr<nl_cb, PutCallbacks> callbacks(::nl_cb_alloc(NL_CB_DEFAULT));
    if (callbacks == nullptr) return ENOMEM;
    ::nl_cb_set(callbacks.get(), NL_CB_VALID, NL_CB_CUSTOM, &NetlinkNbd::on_message, &answer);
    ::nl_cb_set(callbacks.get(), NL_CB_ACK, NL_CB_CUSTOM, &NetlinkNbd::on_ack, &answer);
    ::nl_cb_err(callbacks.get(), NL_CB_CUSTOM, &NetlinkNbd::on_error, &answer);
    while (!answer.done) {
      const int code = ::nl_recvmsgs(socket_.get(), callbacks.get());
      if (code < 0 && code != -NLE_INTR && !answer.done) return EIO;
    }
    return answer.error;
  }
  static int on_message(nl_msg* message, void* user) {
    if (const auto index = index_in(::nlmsg_hdr(message)))
      static_cast<Answer*>(user)->index = index;
    return NL_OK;
  }
  static int on_ack(nl_msg*, void* user) {
    static_cast<Answer*>(user)->done = true;
    return NL_STOP;
  }
  static int on_error(sockaddr_nl*, nlmsgerr* said, void* user) {
    auto* answer = static_cast<Answer*>(user);
    answer->error = said->error == 0 ? EIO : std::abs(said->error);
    answer->done = true;
    return NL_STOP;
  }

  std::unique_ptr<nl_sock, FreeSocket> socket_{::nl_socket_alloc()};
  int family_ = -1;
};

}  // namespace

std::uint16_t kernel_flags(std::uint16_t transmission_flags) {
  return transmission_flags & (kHasFlags | kReadOnly | kSendFlush | kSendFua | kSendTrim |
                               kSendWriteZeroes | kCanMultiConn);
}

Result<std::unique_ptr<KernelNbd>> open_kernel_nbd() {
  auto link = std::make_unique<NetlinkNbd>();
  if (auto opened = link->open(); !opened) return std::unexpected(std::move(opened.error()));
  return link;
}

std::vector<std::byte> encode_kernel_message(KernelCommand command, const KernelConfig& config,
                                             std::uint16_t family) {
  const Message message = make_message(command, config, family);
  const nlmsghdr* header = ::nlmsg_hdr(message.get());
  const auto* bytes = reinterpret_cast<const std::byte*>(header);
  return {bytes, bytes + header->nlmsg_len};
}

std::optional<std::uint32_t> decode_connect_reply(const std::vector<std::byte>& message) {
  if (message.size() < sizeof(nlmsghdr)) return std::nullopt;
  // Aligned, and with nothing behind it that could be read by mistake.
  const Message copy(::nlmsg_alloc_size(std::max(message.size(), sizeof(nlmsghdr) + 8)));
  NVMF_CHECK(copy != nullptr);
  nlmsghdr* header = ::nlmsg_hdr(copy.get());
  std::memcpy(header, message.data(), message.size());
  if (::nlmsg_ok(header, static_cast<int>(message.size())) == 0) return std::nullopt;
  return index_in(header);
}

}  // namespace nvmf::nbd
