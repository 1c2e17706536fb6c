#include "frontends/nbd/kernel_setup.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <thread>
#include <utility>

#include "frontends/nbd/protocol.h"
#include "frontends/nbd/request.h"

namespace nvmf::nbd {
namespace {

constexpr std::chrono::milliseconds kReaderLook{1};

}  // namespace

std::uint16_t server_flags(const host::BlockInfo& info) {
  std::uint16_t flags = kernel_flags(transmission_flags(info, false));
  // The kernel writes zeroes itself, in requests of a bounded length, where we had to do the same.
  if (!info.write_zeroes) flags &= static_cast<std::uint16_t>(~kSendWriteZeroes);
  return flags;
}

Result<KernelNbd*> KernelSetup::link() {
  if (link_ == nullptr) {
    auto opened = system_.open();
    if (!opened) return std::unexpected(std::move(opened.error()));
    link_ = std::move(*opened);
  }
  return link_.get();
}

Result<KernelDevice> KernelSetup::make(const KernelOrder& order) {
  auto old = take_over(order);
  if (!old) return std::unexpected(std::move(old.error()));
  if (*old) return std::move(**old);
  return connect(order);
}

bool KernelSetup::begin(const std::vector<io::UniqueFd>& connections) const {
  for (const io::UniqueFd& fd : connections) {
    // A socket that is new has room for them.
    if (::write(fd.get(), kReplyBegun.data(), kReplyBegun.size()) !=
        static_cast<ssize_t>(kReplyBegun.size())) {
      return false;
    }
  }
  const auto until = std::chrono::steady_clock::now() + kReaderPatience;
  for (const io::UniqueFd& fd : connections) {
    while (!system_.is_read(fd.get())) {
      if (std::chrono::steady_clock::now() > until) return false;
      std::this_thread::sleep_for(kReaderLook);
    }
  }
  return true;
}

Result<KernelDevice> KernelSetup::connect(const KernelOrder& order) {
  for (unsigned tries = 0; tries < kConnectTries; ++tries) {
    auto device = connect_once(order);
    if (!device || begin(device->connections)) return device;
    if (auto gone = disconnect(device->index, order.backend); !gone)
      return std::unexpected(gone.error());
  }
  return fail(
      "the kernel does not read the replies of its NBD device: it has no threads for that; try "
      "again, or with fewer connections (-i 1)",
      EAGAIN);
}

Result<KernelDevice> KernelSetup::connect_once(const KernelOrder& order) {
  auto kernel = link();
  if (!kernel) return std::unexpected(std::move(kernel.error()));
  KernelDevice device;
  KernelConfig config = {.index = order.index,
                         .size_bytes = order.info.size_bytes,
                         .block_bytes = order.info.block_bytes,
                         .timeout_s = order.timeouts.timeout_s,
                         .dead_conn_timeout_s = order.timeouts.dead_conn_s,
                         .server_flags = server_flags(order.info),
                         .client_flags = 0,  // nor any that an earlier owner has left
                         .sockets = {},
                         .backend = order.backend};
  std::vector<io::UniqueFd> kernels;
  for (std::size_t i = 0; i < order.timeouts.connections; ++i) {
    auto pair = system_.make_pair();
    if (!pair) return std::unexpected(std::move(pair.error()));
    config.sockets.push_back(pair->kernels.get());
    device.connections.push_back(std::move(pair->ours));
    kernels.push_back(std::move(pair->kernels));
  }
  auto index = (*kernel)->connect(config);
  if (!index) {
    if (index.error().code != EBUSY || !order.index) return std::unexpected(index.error());
    const auto facts = system_.sysfs.look(*order.index);
    const std::string who = facts && facts->pid != 0 ? ", by " + system_.sysfs.who(facts->pid) : "";
    return fail(fmt::format("/dev/nbd{} is in use{}: give another one, or --nbd-device auto for "
                            "any that is free",
                            *order.index, who),
                EBUSY);
  }
  device.index = *index;
  device.timeouts = order.timeouts;
  device.size_bytes = order.info.size_bytes;
  device.read_only = order.info.read_only;
  // Somebody else who serves the same namespace may be looking whether it is alive.
  if (auto lock = system_.sysfs.lock(device.index)) device.lock = std::move(*lock);
  return device;
}

/// Looks for a device that another process has made for the same namespace.
Result<std::optional<KernelDevice>> KernelSetup::take_over(const KernelOrder& order) {
  for (const std::uint32_t index : system_.sysfs.indices()) {
    const auto facts = system_.sysfs.look(index);
    if (!facts || !facts->configured || facts->backend != order.backend) continue;
    auto lock = system_.sysfs.lock(index);
    if (!lock) {
      // Its process lives: another connection to the same subsystem, and a device of its own.
      if (lock.error().code == EWOULDBLOCK) continue;
      return std::unexpected(std::move(lock.error()));
    }
    auto device = take_over(order, *facts, std::move(*lock));
    if (device) return std::optional(std::move(*device));
    if (device.error().code != ENXIO) return std::unexpected(std::move(device.error()));
  }
  return std::nullopt;
}

Result<KernelDevice> KernelSetup::take_over(const KernelOrder& order,
                                            const KernelDeviceFacts& facts, io::UniqueFd lock) {
  const auto refuse = [&](std::string_view why) {
    return fail(fmt::format("/dev/nbd{} was left behind by a process that served this namespace "
                            "and was killed, and cannot be taken over: {}. When nobody needs it "
                            "any more, end it with nbd-client -d /dev/nbd{}",
                            facts.index, why, facts.index),
                EBUSY);
  };
  if (order.index && *order.index != facts.index) {
    return refuse(
        fmt::format("/dev/nbd{} was asked for; ask for this one, or for auto", *order.index));
  }
  if (facts.block_bytes != order.info.block_bytes) {
    return refuse(fmt::format("its blocks have {} bytes, those of the namespace {}",
                              facts.block_bytes, order.info.block_bytes));
  }
  if (facts.size_bytes > order.info.size_bytes) {
    return refuse(fmt::format("it has {} bytes, the namespace only {}", facts.size_bytes,
                              order.info.size_bytes));
  }
  KernelDevice device;
  device.index = facts.index;
  device.taken_over = true;
  device.size_bytes = facts.size_bytes;
  device.read_only = facts.read_only;
  device.lock = std::move(lock);
  while (device.connections.size() < kKernelConnectionsMax) {
    auto connection = reconnect(facts.index, order.backend);
    if (!connection) {
      // It went away meanwhile.
      if (connection.error().code == EINVAL) return fail("there is no such device", ENXIO);
      return std::unexpected(std::move(connection.error()));
    }
    if (!*connection) break;
    device.connections.push_back(std::move(**connection));
  }
  if (device.connections.empty()) return fail("its connections are alive", ENXIO);
  device.timeouts = fit_timeouts(order.timeouts, device.connections.size());
  auto timed = (*link())->reconfigure({.index = facts.index,
                                       .timeout_s = device.timeouts.timeout_s,
                                       .dead_conn_timeout_s = device.timeouts.dead_conn_s,
                                       .backend = order.backend});
  if (!timed) return std::unexpected(std::move(timed.error()));
  return device;
}

Result<std::optional<io::UniqueFd>> KernelSetup::reconnect(std::uint32_t index,
                                                           const std::string& backend) {
  auto kernel = link();
  if (!kernel) return std::unexpected(std::move(kernel.error()));
  auto pair = system_.make_pair();
  if (!pair) return std::unexpected(std::move(pair.error()));
  auto done = (*kernel)->reconfigure(
      {.index = index, .sockets = {pair->kernels.get()}, .backend = backend});
  if (!done) return std::unexpected(std::move(done.error()));
  pair->kernels.reset();
  // Nobody says whether it was taken.
  if (system_.is_deserted(pair->ours.get())) return std::nullopt;
  std::vector<io::UniqueFd> taken;
  taken.push_back(std::move(pair->ours));
  // Only one waits for a thread at a time: it will get one, if not within our patience.
  (void)begin(taken);
  return std::optional(std::move(taken.front()));
}

Result<void> KernelSetup::resize(std::uint32_t index, const std::string& backend,
                                 std::uint64_t size_bytes) {
  auto kernel = link();
  if (!kernel) return std::unexpected(std::move(kernel.error()));
  return (*kernel)->reconfigure({.index = index, .size_bytes = size_bytes, .backend = backend});
}

Result<void> KernelSetup::disconnect(std::uint32_t index, const std::string& backend) {
  // Somebody may have disconnected it, and another one have got its number since. (Kernels before
  // 5.14 do not tell a device's backend.)
  const auto facts = system_.sysfs.look(index);
  if (facts && !facts->configured) return {};
  if (facts && !facts->backend.empty() && facts->backend != backend) return {};
  auto kernel = link();
  if (!kernel) return std::unexpected(std::move(kernel.error()));
  return (*kernel)->disconnect(index);
}

}  // namespace nvmf::nbd
