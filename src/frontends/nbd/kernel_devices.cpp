#include "frontends/nbd/kernel_devices.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "nvme/check.h"

namespace nvmf::nbd {
namespace {

Result<KernelDevice> no_room() {
  return fail(fmt::format("one process serves {} connections of the kernel, and there are as many; "
                          "connect to some of the namespaces only, or with fewer queues (-i)",
                          kClientsMax),
              EUSERS);
}

std::string holding(std::uint32_t index, const std::vector<std::string>& holders) {
  return fmt::format("/dev/nbd{} is still held by {}", index, enumerate(holders));
}

}  // namespace

KernelDevices::KernelDevices(std::vector<transport::Loop*> loops, KernelDevicesOptions options)
    : loops_(std::move(loops)),
      options_(std::move(options)),
      loop_(*loops_.front()),
      arena_(options_.buffer_bytes, kClientsMax),
      setup_(options_.system),
      next_index_(options_.first_index),
      grace_(loop_.timers(), [this] { stop_lanes(true); }) {
  for (transport::Loop* loop : loops_) {
    lanes_.push_back(std::make_unique<KernelLane>(
        *loop, arena_,
        [this](const KernelLane::Gone& how) { loop_.post([this, how] { gone(how); }); },
        [this] { loop_.post([this] { lane_stopped(); }); }));
  }
}

KernelDevices::~KernelDevices() = default;

std::vector<std::string> KernelDevices::held() const {
  std::vector<std::string> sentences;
  auto left = kHoldersLimit;
  for (const auto& [nsid, device] : devices_) {
    if (device.state != State::serving || left <= left.zero()) continue;
    const auto began = std::chrono::steady_clock::now();
    const auto holders = options_.system.sysfs.holders(device.index, left);
    if (!holders.empty()) sentences.push_back(holding(device.index, holders));
    left -= std::chrono::ceil<std::chrono::milliseconds>(std::chrono::steady_clock::now() - began);
  }
  return sentences;
}

std::string KernelDevices::path(const Device& device) const {
  return fmt::format("/dev/nbd{}", device.index);
}

void KernelDevices::tell(bool warning, const std::string& sentence) const {
  if (options_.tell) options_.tell(warning, sentence);
}

/// On the worker; stop() waits for it.
void KernelDevices::run(std::move_only_function<void()> job) {
  ++jobs_;
  worker_.run([this, job = std::move(job)]() mutable {
    job();
    post([this] {
      --jobs_;
      maybe_stopped();
    });
  });
}

/// From the worker, back to the control loop.
void KernelDevices::post(std::move_only_function<void()> task) {
  loop_.post(std::move(task));
}

void KernelDevices::start(std::function<void(Result<void>)> on_started) {
  NVMF_CHECK(!started_);
  started_ = true;
  on_started_ = std::move(on_started);
  starting_ = attached_now();
  for (auto& [nsid, device] : devices_) {
    if (!device.detached) make(device);
  }
  if (starting_ == 0) std::exchange(on_started_, nullptr)({});
}

void KernelDevices::attached(const frontends::Disk& disk) {
  Device& device = devices_[disk.info.nsid];
  device.disk = disk;
  device.detached = false;
  if (device.backend.empty() && next_index_) device.wanted = (*next_index_)++;
  device.backend = options_.backend(disk.info.nsid);
  if (!started_ || stopping_) return;
  if (device.state == State::serving) return update(device);
  if (device.state == State::idle) make(device);
}

/// The first of all that are on the way to a start may be the one that cannot.
void KernelDevices::one_started(Result<void> how) {
  if (starting_ == 0) return;
  --starting_;
  if (!on_started_ || (how && starting_ != 0)) return;
  serves_ = how.has_value();
  std::exchange(on_started_, nullptr)(std::move(how));
}

std::size_t KernelDevices::attached_now() const {
  return static_cast<std::size_t>(
      std::ranges::count_if(devices_, [](const auto& one) { return !one.second.detached; }));
}

void KernelDevices::make(Device& device) {
  device.state = State::making;
  device.given_up = false;
  device.wants_room = false;
  const std::size_t room = kClientsMax - std::min<std::size_t>(kClientsMax, sessions_ + promised_);
  const std::size_t fair =
      std::max<std::size_t>(kClientsMax / std::max<std::size_t>(attached_now(), 1), 1);
  KernelOrder order = {.info = device.disk.info,
                       .backend = device.backend,
                       .index = device.wanted,
                       .timeouts = options_.timeouts};
  order.timeouts.connections = std::min({order.timeouts.connections, fair, room});
  device.promised = order.timeouts.connections;
  promised_ += device.promised;
  run([this, order = std::move(order)] {
    auto result = std::make_shared<Result<KernelDevice>>(
        order.timeouts.connections == 0 ? no_room() : setup_.make(order));
    post([this, nsid = order.info.nsid, result] { made(nsid, std::move(*result)); });
  });
}

/// Those that there was no room for, by rising NSID.
void KernelDevices::make_waiting() {
  if (!started_ || stopping_) return;
  for (auto& [nsid, device] : devices_) {
    if (sessions_ + promised_ >= kClientsMax) return;
    if (device.wants_room && !device.detached && device.state == State::idle) make(device);
  }
}

void KernelDevices::made(std::uint32_t nsid, Result<KernelDevice> result) {
  Device& device = devices_.at(nsid);
  promised_ -= std::exchange(device.promised, 0);
  if (!result) {
    device.state = State::idle;
    const Error why{fmt::format("{} gets no device of the kernel: {}", device.disk.info.name,
                                result.error().message),
                    result.error().code};
    if (starting_ == 0) tell(true, why.message);
    device.wants_room = why.code == EUSERS;
    return one_started(std::unexpected(why));
  }
  device.state = State::serving;
  ++device.life;
  device.connections = 0;
  device.index = result->index;
  device.lock = std::move(result->lock);
  device.timeouts = result->timeouts;
  device.told_size_bytes = result->size_bytes;
  device.told_read_only = result->read_only;
  device.taken_over = result->taken_over;
  device.missing = 0;
  device.tries = 0;
  for (io::UniqueFd& connection : result->connections) serve(device, std::move(connection));
  if (device.taken_over) {
    tell(false, fmt::format("{} goes on as {}, which a process had left behind",
                            device.disk.info.name, path(device)));
  }
  if (stopping_) return leave(device, true);
  if (device.detached) {
    leave(device, false);
  } else {
    update(device);
  }
  one_started({});
}

/// The reactors take turns.
void KernelDevices::serve(Device& device, io::UniqueFd connection) {
  ++device.connections;
  ++sessions_;
  const std::size_t at = device.next_lane++ % lanes_.size();
  KernelLane& lane = *lanes_[at];
  auto incoming =
      options_.incoming(std::move(connection), fmt::format("the kernel's nbd{}", device.index));
  lane.loop().post([&lane, incoming = std::move(incoming), bd = device.disk.devices[at],
                    life = device.life, flags = server_flags(device.disk.info),
                    answer_after = device.timeouts.answer_after]() mutable {
    lane.add(std::move(incoming), *bd, life, flags, answer_after);
  });
}

void KernelDevices::changed(const frontends::Disk& disk) {
  const auto it = devices_.find(disk.info.nsid);
  if (it == devices_.end()) return;
  it->second.disk = disk;
  if (it->second.state == State::serving && !stopping_) update(it->second);
}

/// Tells the kernel what is not as it was told.
void KernelDevices::update(Device& device) {
  const host::BlockInfo& info = device.disk.info;
  if (device.given_up) return;
  if (info.size_bytes != device.told_size_bytes) {
    device.told_size_bytes = info.size_bytes;
    run([this, index = device.index, backend = device.backend, bytes = info.size_bytes] {
      if (auto done = setup_.resize(index, backend, bytes); !done) {
        post([this, why = done.error().message] { tell(true, why); });
      }
    });
  }
  if (info.read_only != device.told_read_only) {
    device.told_read_only = info.read_only;
    run([this, index = device.index, read_only = info.read_only] {
      if (auto done = options_.system.sysfs.set_read_only(index, read_only); !done) {
        post([this, why = done.error().message] { tell(true, why); });
      }
    });
  }
}

void KernelDevices::detached(std::uint32_t nsid) {
  const auto it = devices_.find(nsid);
  if (it == devices_.end()) return;
  it->second.detached = true;
  if (it->second.state == State::serving && !stopping_) leave(it->second, false);
}

/// A connection has ended, and was not the device's only one perhaps.
void KernelDevices::gone(const KernelLane::Gone& how) {
  Device& device = devices_.at(how.nsid);
  NVMF_CHECK(sessions_ > 0);
  --sessions_;
  make_waiting();
  if (how.dismissed) tell(true, how.reason.message);
  if (how.life != device.life) return;
  NVMF_CHECK(device.connections > 0);
  --device.connections;
  // If the device stays after all, it is to have it back.
  if (device.state == State::leaving && !how.said_goodbye) ++device.missing;
  if (stopping_ || device.state != State::serving) return;
  if (how.said_goodbye && !device.given_up) {
    tell(true, fmt::format("somebody else has disconnected {}: {} is not served there any more",
                           path(device), device.disk.info.name));
    device.given_up = true;
    told_gone(fmt::format("{} was disconnected", path(device)));
  }
  if (device.given_up) {
    if (device.connections == 0) give_up(device);
    return;
  }
  ++device.missing;
  replace(device);
}

void KernelDevices::told_gone(const std::string& how) const {
  if (views().empty() && options_.on_gone) options_.on_gone(how);
}

void KernelDevices::give_up(Device& device) {
  device.state = State::idle;
  device.lock.reset();
  device.missing = 0;
}

void KernelDevices::replace(Device& device) {
  if (device.missing == 0 || device.replacing || device.given_up) return;
  if (device.pause && device.pause->armed()) return;
  device.replacing = true;
  run([this, nsid = device.disk.info.nsid, index = device.index, backend = device.backend] {
    auto result =
        std::make_shared<Result<std::optional<io::UniqueFd>>>(setup_.reconnect(index, backend));
    post([this, nsid, result] { replaced(nsid, std::move(*result)); });
  });
}

void KernelDevices::replaced(std::uint32_t nsid, Result<std::optional<io::UniqueFd>> result) {
  Device& device = devices_.at(nsid);
  device.replacing = false;
  if (stopping_ || device.state != State::serving) return;
  if (!result) return try_again(device, result.error());
  if (!*result) return try_again(device, Error{"the kernel takes no new connection", EAGAIN});
  device.tries = 0;
  --device.missing;
  tell(true, fmt::format("the kernel had given up a connection of {}, and has got a new one",
                         path(device)));
  serve(device, std::move(**result));
  replace(device);
}

void KernelDevices::try_again(Device& device, const Error& why) {
  if (device.given_up) return;
  if (++device.tries >= kReplaceTries) {
    tell(true, fmt::format("{} has lost a connection for good: {}", path(device), why.message));
    device.missing = 0;
    device.tries = 0;
    if (device.connections > 0) return;
    // Whoever has it open is to see errors rather than to wait for nobody.
    device.given_up = true;
    leave(device, true);
    return told_gone(fmt::format("{} is lost", path(device)));
  }
  if (!device.pause) {
    device.pause =
        std::make_unique<transport::Timer>(loop_.timers(), [this, &device] { replace(device); });
  }
  device.pause->arm(loop_.now() + kReplacePause);
}

/// Disconnects the device; not if somebody has it open, unless `even_if_held`.
void KernelDevices::leave(Device& device, bool even_if_held) {
  device.state = State::leaving;
  if (device.pause) device.pause->cancel();
  // What a start that failed took over is somebody's who waits for better times.
  const bool keep = stopping_ && device.taken_over && !serves_;
  Leaving leaving = {.nsid = device.disk.info.nsid,
                     .name = device.disk.info.name,
                     .index = device.index,
                     .backend = device.backend,
                     .even_if_held = even_if_held};
  run([this, leaving = std::move(leaving), keep]() mutable {
    if (keep) {
      leaving.sentence = fmt::format(
          "/dev/nbd{} is left as it was found, for another process to serve", leaving.index);
    } else {
      disconnect(leaving);
    }
    post([this, leaving = std::move(leaving)] {
      if (!leaving.sentence.empty()) tell(true, leaving.sentence);
      left(leaving);
    });
  });
}

/// On the worker.
void KernelDevices::disconnect(Leaving& one) {
  const auto look = [&](std::chrono::milliseconds limit) {
    return options_.system.sysfs.holders(one.index, limit);
  };
  if (!one.even_if_held) {
    if (const auto holders = look(kHoldersLimit); !holders.empty()) {
      one.sentence = fmt::format("{}: {} has gone, and it sees errors until that is back",
                                 holding(one.index, holders), one.name);
      return;
    }
  }
  if (auto done = setup_.disconnect(one.index, one.backend); !done) {
    one.sentence = done.error().message;
    return;
  }
  one.disconnected = true;
  // Whoever had it open still has. At an end, other devices wait to be disconnected, and there is
  // not much time for all of them.
  if (holders_left_ <= holders_left_.zero()) return;
  const auto began = std::chrono::steady_clock::now();
  if (const auto holders = look(holders_left_); !holders.empty()) {
    one.sentence = fmt::format("{}: it was disconnected all the same, and they see errors",
                               holding(one.index, holders));
  }
  if (!one.even_if_held) return;
  holders_left_ -=
      std::chrono::ceil<std::chrono::milliseconds>(std::chrono::steady_clock::now() - began);
}

void KernelDevices::left(const Leaving& one) {
  Device& device = devices_.at(one.nsid);
  // It was to stay for those who hold it, and stop() came meanwhile.
  if (stopping_ && !one.disconnected && !one.even_if_held) return leave(device, true);
  if (one.disconnected || one.even_if_held) {
    give_up(device);
    // It came back while its device went.
    if (!stopping_ && !device.detached && !device.given_up) make(device);
    return;
  }
  device.state = State::serving;
  if (device.connections == 0 && device.missing == 0) return give_up(device);
  replace(device);
  if (!device.detached) update(device);
}

void KernelDevices::stop(std::move_only_function<void()> on_stopped) {
  NVMF_CHECK(!stopping_);
  on_started_ = nullptr;
  on_stopped_ = std::move(on_stopped);
  lanes_left_ = lanes_.size();
  stopping_ = true;
  starting_ = 0;
  for (auto& [nsid, device] : devices_) {
    if (device.state == State::serving) leave(device, true);
  }
  grace_.arm(loop_.now() + options_.grace);
  // The kernel says goodbye to each connection; then there is nothing to wait for.
  run([this] { post([this] { stop_lanes(false); }); });
}

void KernelDevices::hurry() {
  if (stopping_) stop_lanes(true);
}

void KernelDevices::stop_lanes(bool now) {
  if (!std::exchange(lanes_stopping_, true) || now) {
    for (const auto& lane : lanes_) {
      lane->loop().post([&l = *lane, now] { now ? l.cut() : l.stop(); });
    }
  }
}

void KernelDevices::lane_stopped() {
  --lanes_left_;
  maybe_stopped();
}

void KernelDevices::maybe_stopped() {
  if (!stopping_ || lanes_left_ > 0 || jobs_ > 0 || !on_stopped_) return;
  grace_.cancel();
  std::exchange(on_stopped_, nullptr)();
}

std::vector<KernelDeviceView> KernelDevices::views() const {
  std::vector<KernelDeviceView> all;
  for (const auto& [nsid, device] : devices_) {
    if (device.state != State::serving || device.given_up || device.detached) continue;
    all.push_back({nsid, path(device), device.connections, device.taken_over});
  }
  return all;
}

}  // namespace nvmf::nbd
