// What goes wrong in a World, and how it is put right.
#include <algorithm>
#include <chrono>

#include "simulator/world.h"

namespace nvmf::simulator {

using sim::Link;
using sim::Side;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

using Links = std::vector<std::shared_ptr<Link>>;

Duration percent_of(Duration d, std::uint64_t percent) {
  return d * static_cast<std::int64_t>(percent) / 100;
}

}  // namespace

/// Those of the process that lives, in the order of their making: the admin queue's first.
std::vector<std::shared_ptr<sim::Link>> World::host_links() {
  Links mine;
  for (const auto& link : loop_.links()) {
    if (process_->owns(link->client()) && link->open(Side::client)) mine.push_back(link);
  }
  return mine;
}

void World::make_trouble(Trouble trouble) {
  if (process_->ended()) {
    end_process();
    start_process();
    run_until([this] { return process_->live() || process_->ended(); }, seconds(5));
  }
  // Writes that are under way when it happens are what it is about.
  const bool loses = trouble >= Trouble::cut_all && trouble <= Trouble::other_limits;
  if (loses && trouble != Trouble::trickle && random_.percent(50)) {
    for (const auto& disk : disks_) disk->hang(60);
    run_for(random_.between(milliseconds(5), milliseconds(60)));
    for (const auto& disk : disks_) disk->hang(plan_.hang_percent);
    if (over() || process_->ended()) return;
  }
  trace_.event('X', static_cast<std::uint64_t>(trouble));
  trace_.say("trouble: {}", name_of(trouble));
  if (trouble >= Trouble::cut_all && trouble <= Trouble::false_reset) {
    network_trouble(trouble);
  } else if (trouble >= Trouble::crash && trouble <= Trouble::stall) {
    target_trouble(trouble);
  } else if (trouble >= Trouble::refuse_commands && trouble <= Trouble::remove_namespace) {
    if (target_up_) command_trouble(trouble);
  } else if (trouble != Trouble::none) {
    host_trouble(trouble);
  }
}

void World::network_trouble(Trouble trouble) {
  const Duration katt = plan_.katt();
  Links links = host_links();
  if (links.empty()) return;
  if (random_.percent(30)) {
    unreachable_until_ = loop_.now() + random_.between(Duration{}, 2 * katt);
  }
  switch (trouble) {
    case Trouble::cut_one:
      return links[random_.below(links.size())]->cut();
    case Trouble::cut_all:
      for (const auto& link : links) link->cut();
      return;
    case Trouble::black_hole:
      for (const auto& link : links) link->blackhole();
      return after(percent_of(katt, random_.between(20, 300)), [links] {
        for (const auto& link : links) link->blackhole(false);
      });
    case Trouble::deaf:
      for (const auto& link : links) link->block(Side::server);
      return after(percent_of(katt, random_.between(50, 300)), [links] {
        for (const auto& link : links) link->block(Side::server, false);
      });
    case Trouble::late_dark: {
      const Duration late = percent_of(katt, random_.between(50, 98));
      for (const auto& link : links) link->options.latency = late;
      const bool both = random_.percent(50);
      if (random_.percent(80)) {
        after(percent_of(katt, random_.between(0, 60)), [links, both] {
          for (const auto& link : links) {
            link->lose(Side::client);
            if (both) link->lose(Side::server);
          }
        });
      }
      return;
    }
    case Trouble::trickle:
      return trickle();
    case Trouble::host_timeout:
      for (const auto& link : links) link->blackhole();
      return after(percent_of(katt, random_.between(30, 100)), [links] {
        for (const auto& link : links) link->vanish(Side::client, ETIMEDOUT);
      });
    case Trouble::false_reset:
      for (const auto& link : links) {
        if (random_.percent(50)) link->blackhole();
        link->vanish(Side::client);
      }
      return;
    default:
      return;
  }
}

/// Nothing comes back, and what the host sends waits on the way: now and then one piece passes, in
/// time to keep the controller waiting for more; and what it gets it does not get done.
void World::trickle() {
  const Links links = host_links();
  process_->add_client();
  process_->add_client();
  for (const auto& link : links) {
    link->lose(Side::server);
    link->block(Side::client);
  }
  // All but the admin queue's, which is silent for good.
  silent_.push_back(links.front());
  trickling_.insert(trickling_.end(), links.begin() + 1, links.end());
  trickle_gap_ = percent_of(plan_.katt(), random_.between(70, 97));
  trickle_timer_.arm(loop_.now() + trickle_gap_);
  if (random_.percent(70)) {
    for (const auto& disk : disks_) disk->hang(80);
  }
}

void World::trickle_on() {
  std::erase_if(trickling_, [](const auto& link) { return !link->open(Side::server); });
  for (const auto& link : trickling_) {
    if (!link->release(Side::client)) continue;
    trace_.say("connection {} lets one piece pass", link->id);
    break;
  }
  if (!trickling_.empty()) trickle_timer_.arm(loop_.now() + trickle_gap_);
}

void World::target_trouble(Trouble trouble) {
  const bool silent = random_.percent(20);
  const Duration downtime = random_.percent(60) ? random_.between(Duration{}, milliseconds(100))
                                                : random_.between(Duration{}, seconds(2));
  switch (trouble) {
    case Trouble::crash:
      end_target(false, silent);
      return restart_target(downtime, false);
    case Trouble::power_loss:
      end_target(true, silent);
      return restart_target(downtime, false);
    case Trouble::other_limits:
      target_queues_ = static_cast<std::uint32_t>(random_.between(1, 4));
      target_entries_ = random_.one_of({16U, 32U, 128U});
      end_target(false, silent);
      return restart_target(downtime, false);
    case Trouble::swap_disk: {
      common_.errors_excused = true;
      end_target(false, silent);
      restart_target(milliseconds(1), true);
      run_for(random_.between(milliseconds(100), seconds(2)));
      end_target(false, false);
      foreign_is_up_ = false;
      restart_target(milliseconds(1), false);
      run_for(milliseconds(5));
      return;
    }
    case Trouble::stall:
      for (const auto& disk : disks_) disk->hang(60);
      return after(random_.between(milliseconds(20), milliseconds(300)), [this] {
        for (const auto& disk : disks_) disk->hang(plan_.hang_percent);
      });
    default:
      return;
  }
}

/// Ends some commands with a status that is worth another try, or is not.
void World::refuse_commands() {
  using nvme::StatusCode;
  constexpr StatusCode kCodes[] = {StatusCode::namespace_not_ready,
                                   StatusCode::command_interrupted,
                                   StatusCode::transient_transport_error,
                                   StatusCode::internal_path_error,
                                   StatusCode::controller_path_error,
                                   StatusCode::abort_requested,
                                   StatusCode::internal_error};
  controller::FailFault fault;
  fault.status = nvme::Status(random_.one_of(kCodes), random_.percent(20));
  if (plan_.retry_delays) fault.status.crd = static_cast<std::uint8_t>(random_.below(4));
  fault.count = random_.between(1, 12);
  // Twice in a row is always worth another try, where the status is.
  const bool retried = !fault.status.dnr && fault.status.code() != StatusCode::internal_error;
  if (!retried || *fault.count > 2) common_.errors_excused = true;
  trace_.say("the target refuses {} commands with {}", *fault.count,
             nvme::describe(fault.status, nvme::StatusContext::nvm));
  target_->faults().fail(fault);
}

void World::command_trouble(Trouble trouble) {
  controller::Faults& faults = target_->faults();
  switch (trouble) {
    case Trouble::refuse_commands:
      return refuse_commands();
    case Trouble::fatal_status:
      faults.fatal();
      return;
    case Trouble::keep_alives_lost:
      return faults.ignore_keep_alive({});
    case Trouble::close_queue:
      faults.close_queue(static_cast<std::uint16_t>(random_.between(1, 2)), random_.percent(50));
      return;
    case Trouble::remove_namespace: {
      common_.errors_excused = true;
      const std::size_t ns = random_.below(plan_.namespaces);
      const auto nsid = static_cast<std::uint32_t>(ns + 1);
      if (foreign_is_up_ || !process_->live()) return;
      if (!target_->remove_namespace(kSubnqn, nsid)) return;
      trace_.say("namespace {} is removed", nsid);
      return after(random_.between(Duration{}, seconds(1)), [this, ns, nsid] {
        if (target_up_ && !foreign_is_up_) put_back(ns, nsid);
      });
    }
    default:
      return;
  }
}

void World::put_all_back() {
  for (std::size_t ns = 0; target_up_ && !foreign_is_up_ && ns < plan_.namespaces; ++ns) {
    put_back(ns, static_cast<std::uint32_t>(ns + 1));
  }
}

/// Unless it is there: a target that was restarted has all of them.
void World::put_back(std::size_t ns, std::uint32_t nsid) {
  if (target_->find(kSubnqn)->find(nsid) != nullptr) return;
  trace_.say("namespace {} is put back", nsid);
  if (auto added = target_->add_namespace(kSubnqn, namespace_config(ns, false), nsid); !added) {
    violate("a namespace cannot be put back: " + added.error().message);
  }
}

void World::host_trouble(Trouble trouble) {
  switch (trouble) {
    case Trouble::kill_host: {
      Links links = host_links();
      process_->kill();
      // What its system still has to send is given up in time: TCP_USER_TIMEOUT.
      after(random_.between(Duration{}, plan_.katt()), [links] {
        for (const auto& link : links) link->vanish(Side::client);
      });
      end_process();
      run_for(random_.between(Duration{}, milliseconds(200)));
      start_process();
      return;
    }
    case Trouble::stop_host:
      process_->stop(random_.percent(30));
      run_until([this] { return process_->ended().has_value(); }, seconds(5));
      end_process();
      start_process();
      return;
    case Trouble::reset_host:
      if (!process_->live()) return;
      if (auto done = process_->subsystem().reset(); !done) {
        violate("reset() of a live association failed: " + done.error().message);
      }
      return;
    case Trouble::new_policy: {
      host::LossPolicy policy;
      policy.reconnect_delay = random_.between(milliseconds(100), milliseconds(2000));
      policy.ctrl_loss = plan_.ctrl_loss;
      if (random_.percent(50) || plan_.keep_alive_ms == 0) {
        policy.fast_io_fail = random_.between(Duration{}, milliseconds(1000));
        if (policy.ctrl_loss && *policy.fast_io_fail > *policy.ctrl_loss) {
          policy.fast_io_fail.reset();
        }
      }
      return process_->set_policy(policy);
    }
    case Trouble::leave: {
      // Slow and out of order: what is left behind may come after what follows it.
      for (const auto& disk : disks_) disk->slow(milliseconds(400));
      after(milliseconds(300), [this] {
        for (const auto& disk : disks_) disk->slow(plan_.disk_lag);
      });
      run_for(random_.between(milliseconds(10), milliseconds(60)));
      if (over() || process_->ended()) return;
      process_->remove_client();
      Process* const mine = process_.get();
      const auto join = [this, mine] {
        if (process_.get() == mine && !mine->ended()) mine->add_client();
      };
      return after(3 * plan_.post_delay + random_.between(Duration{}, milliseconds(30)), join);
    }
    default:
      return;
  }
}

void World::heal_disks() {
  for (const auto* disks : {&disks_, &foreign_}) {
    for (const auto& disk : *disks) {
      disk->slow(plan_.disk_lag);
      disk->heal();
    }
  }
}

/// From here on nothing goes wrong any more; what went wrong before takes its course.
void World::heal() {
  trace_.say("from here on all is well");
  trace_.event('H');
  timers_.clear();
  unreachable_until_ = {};
  heal_disks();
  for (const auto& link : loop_.links()) {
    const auto same = [&](const auto& other) { return other == link; };
    if (std::ranges::any_of(trickling_, same) || std::ranges::any_of(silent_, same)) continue;
    link->blackhole(false);
    link->options.latency = plan_.pipe.latency;
  }
  // Without keep-alive nobody would notice in time that the other end is gone.
  if (plan_.keep_alive_ms == 0 && process_) {
    for (const auto& link : host_links()) link->cut();
  }
  if (target_up_) target_->faults().clear();
  put_all_back();
  if (target_up_ && foreign_is_up_) end_target(false, false);
  if (!target_up_) restart_target(milliseconds(1), false);
  run_for(milliseconds(10));
}

}  // namespace nvmf::simulator
