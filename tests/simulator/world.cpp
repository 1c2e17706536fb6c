#include "simulator/world.h"

#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "nvme/check.h"
#include "simulator/stamp.h"

namespace nvmf::simulator {

using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr const char* kHostnqn =
    "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555";
const transport::Endpoint kAddress{.host = "10.0.0.1", .port = 4420, .unix_path = {}};

/// Granules of a block: where requests may begin and end within one.
constexpr std::size_t kGranulesPerBlock = 4;
/// What nobody may have to wait for longer in a healthy world, beside the times of the plan.
constexpr Duration kPatience = seconds(20);
constexpr Duration kWatchEvery = milliseconds(50);
/// Enough for all that a run writes, so that nothing of it is given up.
constexpr std::uint64_t kReplayBytes = 4u << 20;
/// Small, so that making a target costs little.
constexpr std::size_t kTargetBuffers = 16;

/// Memory in use may have grown by so much, from the first association to the end of a run: by
/// more and larger queues, buffers that were needed for the first time, the checker's own lists.
constexpr std::size_t kGrowthMax = 16u << 20;
constexpr std::size_t kLeftOverMax = 256u << 10;

/// 0 where an allocator that is not the system's does not say.
std::size_t allocated_bytes() {
  return mallinfo2().uordblks;
}

DiskShape shape_of(const Plan& plan) {
  return {.blocks = plan.blocks,
          .block_bytes = plan.block_bytes,
          .volatile_cache = plan.volatile_cache,
          .lag = plan.disk_lag,
          .linger = plan.linger,
          .hang_percent = plan.hang_percent};
}

/// A replay that meets a fence is given up when patience is, and a flush fails instead.
host::Unflushed promise_of(const Plan& plan) {
  const bool patient = !plan.fast_io_fail && !plan.ctrl_loss &&
                       std::ranges::find(plan.troubles, Trouble::new_policy) == plan.troubles.end();
  return plan.unflushed == host::Unflushed::replay && !patient ? host::Unflushed::fail
                                                               : plan.unflushed;
}

nvme::Uuid uuid_of(std::size_t ns, bool foreign) {
  nvme::Uuid uuid{};
  uuid[0] = std::byte{0xab};
  uuid[6] = std::byte{0x40};
  uuid[8] = std::byte{0x80};
  uuid[14] = static_cast<std::byte>(foreign ? 1 : 0);
  uuid[15] = static_cast<std::byte>(ns + 1);
  return uuid;
}

host::ConnectParams params_of(const Plan& plan) {
  host::ConnectParams p;
  p.traddr = kAddress.host;
  p.port = kAddress.port;
  p.subnqn = kSubnqn;
  p.hostnqn = kHostnqn;
  p.hostid[3] = std::byte{9};
  p.nr_io_queues = plan.queues;
  p.queue_size = plan.queue_size;
  p.keep_alive_ms = plan.keep_alive_ms;
  p.header_digest = plan.header_digest;
  p.data_digest = plan.data_digest;
  p.connect_timeout = seconds(1);
  p.admin_timeout = plan.command_timeout;
  p.command_timeout = plan.command_timeout;
  p.bring_up_timeout = seconds(5);
  p.loss.reconnect_delay = plan.reconnect_delay;
  p.loss.ctrl_loss = plan.ctrl_loss;
  p.loss.fast_io_fail = plan.fast_io_fail;
  p.cqt_unreported = plan.linger;
  p.trust_peer_close = plan.trust_peer_close;
  p.unflushed = plan.unflushed;
  p.replay_bytes_max = kReplayBytes;
  p.jitter_seed = plan.seed + 1;
  switch (plan.mutant) {
    case Mutant::no_fence:
      p.fence = false;
      break;
    case Mutant::cqt_zero_no_wait:
      p.cqt_unreported = Duration{};
      break;
    case Mutant::one_katt:
      p.rules.silence_katts = 1;
      p.rules.silence_katts_traffic = 1;
      break;
    case Mutant::no_fence_on_error:
      p.rules.fence_after_error = false;
      break;
    case Mutant::retries_unordered:
      p.rules.order_abandoned = false;
      break;
    case Mutant::no_identity_check:
      p.rules.check_identity = false;
      break;
    case Mutant::flush_made_up:
      p.rules.repeat_flush = false;
      break;
    case Mutant::none:
    case Mutant::close_not_reset:
    case Mutant::restart_no_wait:
      break;
  }
  return p;
}

}  // namespace

World::World(Plan plan, bool verbose)
    : plan_(std::move(plan)),
      random_(plan_.seed ^ 0x7365656473696dU),
      loop_(random_.next()),
      trace_(loop_, verbose),
      checker_(std::vector<std::size_t>(plan_.namespaces, plan_.blocks * kGranulesPerBlock),
               promise_of(plan_), plan_.unflushed == host::Unflushed::replay),
      common_{.plan = plan_,
              .loop = loop_,
              .trace = trace_,
              .checker = checker_,
              .violate = [this](std::string s) { violate(std::move(s)); },
              .violate_data = [this](std::string s) { violate_data(std::move(s)); },
              .granule_bytes = plan_.block_bytes / kGranulesPerBlock},
      target_queues_(plan_.target_queues),
      target_entries_(plan_.target_entries),
      trickle_timer_(loop_.timers(), [this] { trickle_on(); }),
      watch_(loop_.timers(), [this] { watch(); }) {
  loop_.pipe = plan_.pipe;
  loop_.on_connect = [this](const transport::Endpoint&) {
    using Kind = sim::ConnectFate::Kind;
    if (loop_.now() < unreachable_until_) return sim::ConnectFate{.kind = Kind::ignore};
    return sim::ConnectFate{.kind = target_up_ ? Kind::normal : Kind::refuse};
  };
  for (std::size_t ns = 0; ns < plan_.namespaces; ++ns) {
    disks_.push_back(
        std::make_unique<DiskModel>(loop_, trace_, random_.fork(), ns, shape_of(plan_)));
    foreign_.push_back(
        std::make_unique<DiskModel>(loop_, trace_, random_.fork(), 100 + ns, shape_of(plan_)));
    std::vector<std::byte> block(plan_.block_bytes);
    for (std::size_t lba = 0; lba < plan_.blocks; ++lba) {
      put_stamp(block, 1, lba, static_cast<std::uint32_t>(100 + ns));
      foreign_.back()->preset(lba, block);
    }
  }
}

World::~World() {
  if (!leaked_) return;
  // What did not end may still be called by its streams and timers; its memory stays.
  for (auto& zombie : zombies_) static_cast<void>(zombie.release());
  for (auto& target : old_targets_) static_cast<void>(target.release());
  static_cast<void>(target_.release());
  for (auto* disks : {&disks_, &foreign_}) {
    for (auto& disk : *disks) static_cast<void>(disk.release());
  }
  loop_.shutdown();
}

void World::violate(std::string sentence) {
  if (violation_) return;
  trace_.say("VIOLATION: {}", sentence);
  violation_ = std::move(sentence);
}

void World::violate_data(std::string sentence) {
  if (!violation_) result_.of_data = true;
  violate(std::move(sentence));
}

void World::run_for(Duration d) {
  run_until([] { return false; }, d);
}

bool World::run_until(const std::function<bool()>& done, Duration most) {
  bool reached = false;
  loop_.run_until(
      [&] {
        if (!violation_ && checker_.violation()) violate_data(*checker_.violation());
        reached = done();
        return reached || over();
      },
      most);
  return reached;
}

void World::after(Duration d, std::move_only_function<void()> what) {
  std::erase_if(timers_, [](const auto& t) { return !t->armed(); });
  timers_.push_back(std::make_unique<transport::Timer>(loop_.timers(), std::move(what)));
  timers_.back()->arm(loop_.now() + d);
}

void World::watch() {
  if (process_) process_->check_deadlines();
  for (const auto& zombie : zombies_) zombie->check_deadlines();
  watch_.arm(loop_.now() + kWatchEvery);
}

// ---- the target

controller::NamespaceConfig World::namespace_config(std::size_t ns, bool foreign_disk) {
  DiskModel* const model = foreign_disk ? foreign_[ns].get() : disks_[ns].get();
  controller::NamespaceConfig one;
  one.kind = controller::NamespaceConfig::Kind::custom;
  one.block_bytes = plan_.block_bytes;
  one.uuid = uuid_of(ns, foreign_disk);
  one.factory = std::make_shared<const controller::DiskFactory>(
      [model]() -> Result<std::unique_ptr<controller::Disk>> { return model->open(); });
  return one;
}

void World::start_target(bool foreign_disks) {
  controller::TargetConfig config;
  controller::SubsystemConfig subsystem{.nqn = kSubnqn};
  for (std::size_t ns = 0; ns < plan_.namespaces; ++ns) {
    subsystem.namespaces.push_back(namespace_config(ns, foreign_disks));
  }
  config.subsystems.push_back(std::move(subsystem));
  config.max_queues = target_queues_;
  config.queue_entries = target_entries_;
  config.in_capsule_bytes = plan_.in_capsule_bytes;
  config.cqt_ms = plan_.cqt_ms;
  if (plan_.retry_delays) config.crdt = {1, 2, 4};
  config.shared_buffers = kTargetBuffers;
  config.uuid_seed = plan_.seed;
  if (trace_.verbose()) {
    config.log = [this](const std::string& line) { trace_.say("target: {}", line); };
  }
  auto made = controller::Target::create(loop_, std::move(config));
  if (!made) return violate("the target cannot start: " + made.error().message);
  target_ = std::move(*made);
  if (auto at = target_->listen(kAddress); !at) {
    return violate("the target cannot listen: " + at.error().message);
  }
  target_up_ = true;
  foreign_is_up_ = foreign_disks;
  trace_.event('T', target_queues_, target_entries_);
  trace_.say("the target is up{}", foreign_disks ? " with other disks" : "");
}

void World::end_target(bool power, bool silent) {
  if (!target_up_) return;
  trace_.event('D', power, silent);
  trace_.say("the target {}{}", power ? "loses its power" : "dies", silent ? " silently" : "");
  target_up_ = false;
  for (const auto& link : loop_.links()) {
    if (!link->open(sim::Side::server)) continue;
    if (silent || power) {
      link->vanish(sim::Side::server);
    } else {
      link->die(sim::Side::server, sim::Farewell::rst);
    }
  }
  for (const auto* disks : {&disks_, &foreign_}) {
    for (const auto& disk : *disks) {
      disk->crash();
      if (power) disk->power_loss();
    }
  }
  if (power) checker_.power_lost();
  // Its connections are gone in this turn; then it is taken away.
  old_targets_.push_back(std::move(target_));
  controller::Target* const old = old_targets_.back().get();
  loop_.post([this, old] {
    loop_.post([this, old] {
      for (const auto* disks : {&disks_, &foreign_}) {
        for (const auto& disk : *disks) disk->let_go();
      }
      old->stop([this, old](Result<void> stopped) {
        if (!stopped) violate("the dead target does not go: " + stopped.error().message);
        loop_.post([this, old] {
          std::erase_if(old_targets_, [old](const auto& t) { return t.get() == old; });
        });
      });
    });
  });
}

void World::restart_target(Duration downtime, bool foreign_disks) {
  after(std::max<Duration>(downtime, milliseconds(1)), [this, foreign_disks] {
    if (target_up_) return;
    if (!old_targets_.empty()) return restart_target(milliseconds(1), foreign_disks);
    start_target(foreign_disks);
  });
}

// ---- the host

Process& World::start_process() {
  // A process that never saw a namespace has no device for it.
  put_all_back();
  host::ConnectParams params = params_of(plan_);
  if (unclean_ && plan_.mutant != Mutant::restart_no_wait) {
    params.hold_writes = host::silence_bound(*unclean_, params).value_or(Duration::max());
  }
  process_ = std::make_unique<Process>(common_, random_.fork(), next_process_++, params);
  for (std::size_t i = 0; i < plan_.clients; ++i) process_->add_client();
  trace_.say("process {} starts and holds writes for {} ms", next_process_ - 1,
             static_cast<double>(params.hold_writes.count()) / 1e6);
  process_->start();
  return *process_;
}

void World::bury_processes() {
  std::erase_if(zombies_, [](const auto& p) { return p->gone(); });
}

void World::count(const Process& process) {
  result_.failed += process.failed();
  result_.losses += process.losses();
}

/// The process there is makes room for the next one, which has to know what it leaves behind.
void World::end_process() {
  if (process_->facts()) {
    unclean_ = process_->facts();
    const bool orderly = process_->ended() && process_->ended()->code == 0;
    if (orderly && process_->subsystem().still_executing_for() == Duration::zero()) {
      unclean_.reset();
    }
  }
  count(*process_);
  checker_.process_gone();
  zombies_.push_back(std::move(process_));
  bury_processes();
}

// ---- the way of a run

void World::give(std::size_t requests) {
  common_.requests_left += requests;
  result_.requests += requests;
  if (process_ && !process_->killed() && !process_->ended()) process_->resume();
}

RunResult World::run() {
  watch_.arm(loop_.now() + kWatchEvery);
  trace_.say("seed {}: {}", plan_.seed, describe(plan_));
  const Instant begin = loop_.now();
  start_target(false);
  if (!over()) start_process();
  if (!over()) work();
  if (!over()) finish();
  close();
  result_.violation = violation_;
  result_.lasted = loop_.now() - begin;
  for (const auto& disk : disks_) result_.ghosts += disk->ghosts();
  result_.hash = trace_.hash();
  return result_;
}

void World::work() {
  const std::size_t share = plan_.requests / (2 * plan_.troubles.size() + 2) + 1;
  run_until([this] { return process_->live() || process_->ended(); }, seconds(10));
  allocated_at_first_ = allocated_bytes();
  for (const Trouble trouble : plan_.troubles) {
    give(share);
    run_for(random_.between(Duration{}, std::min<Duration>(plan_.think * 8, milliseconds(400))));
    if (over()) return;
    make_trouble(trouble);
    give(share);
    settle();
    if (over()) return;
  }
  give(share);
  run_for(random_.between(Duration{}, milliseconds(600)));
}

/// Sometimes until all is well again, sometimes into the next trouble.
void World::settle() {
  if (random_.percent(30)) return run_for(random_.between(Duration{}, 2 * plan_.katt()));
  run_for(random_.between(Duration{}, plan_.katt()));
  run_until([this] { return process_->live() || process_->ended(); },
            4 * plan_.katt() + plan_.command_timeout);
  run_for(random_.between(Duration{}, plan_.katt() + plan_.linger));
}

void World::finish() {
  heal();
  if (process_->ended()) {
    end_process();
    start_process();
  }
  give(plan_.requests / 6 + 1);
  // Where a fence may stand for ever, each request that meets it takes all the patience there is.
  if (plan_.keep_alive_ms == 0) common_.requests_left = 0;
  const Duration fence = 3 * plan_.katt() + plan_.linger;
  const auto all_done = [this] {
    return (process_->ended() && process_->outstanding() == 0) ||
           (process_->live() && process_->outstanding() == 0 && common_.requests_left == 0);
  };
  if (!run_until(all_done, kPatience + 2 * fence + 2 * plan_.command_timeout)) {
    return violate(fmt::format("{} requests are never completed ({}), and {} never submitted",
                               process_->outstanding(), process_->live() ? "live" : "not live",
                               common_.requests_left));
  }
  if (process_->ended()) {  // controller loss, before it was healed
    common_.requests_left = 0;
    end_process();
    start_process();
    run_until([this] { return process_->live() || process_->ended(); }, kPatience);
  }
  // A loss that was on its way may not have been noticed yet, nor a disk that is back.
  run_for(2 * plan_.katt() + (common_.errors_excused ? seconds(1) : milliseconds(50)));
  run_until([this] { return process_->live() || process_->ended(); }, kPatience);
  run_for(milliseconds(20));  // until every reactor knows
  read_back();
  if (over()) return;
  // Until the last ghost has had its time.
  run_until([this] { return trickling_.empty(); }, kPatience);
  run_for(fence);
  run_until(
      [this] { return std::ranges::none_of(disks_, [](const auto& d) { return d->busy(); }); },
      kPatience);
  if (!over()) look_at_disks();
  bury_processes();
  const std::size_t now = allocated_bytes();
  result_.growth = now > allocated_at_first_ ? now - allocated_at_first_ : 0;
  if (result_.growth > kGrowthMax) {
    violate(fmt::format("memory has grown by {} bytes during the run", result_.growth));
  }
}

void World::read_back() {
  if (!process_->live()) {
    return violate("no association can be made in a healthy world: " +
                   (process_->ended() ? process_->ended()->message : "it takes too long"));
  }
  const std::uint64_t failed = process_->failed();
  process_->pause();
  process_->read_all();
  const auto read = [this] { return process_->outstanding() == 0; };
  if (!run_until(read, kPatience + plan_.command_timeout)) {
    return violate("reading everything back does not end");
  }
  if (process_->failed() != failed) violate("reading everything back has failed");
}

void World::look_at_disks() {
  for (std::size_t ns = 0; ns < disks_.size(); ++ns) {
    std::vector<Id> values;
    for (std::size_t lba = 0; lba < plan_.blocks; ++lba) {
      const auto block = disks_[ns]->block(lba);
      for (std::size_t i = 0; i < kGranulesPerBlock; ++i) {
        const std::size_t g = lba * kGranulesPerBlock + i;
        const auto place = block.subspan(i * common_.granule_bytes, common_.granule_bytes);
        const auto value = read_stamp(place, g, static_cast<std::uint32_t>(ns));
        if (!value) {
          return violate_data(fmt::format(
              "granule {} of disk {} holds at the end what no request can have written", g, ns));
        }
        values.push_back(*value);
      }
    }
    checker_.look(ns, values);
    if (foreign_[ns]->changes() != 0) {
      violate_data(fmt::format("{} writes were made to a disk that is another one",
                               foreign_[ns]->changes()));
    }
  }
  if (checker_.violation()) violate_data(*checker_.violation());
}

/// Ends everything in order, also after a violation.
void World::close() {
  const bool was_over = over();
  std::optional<std::string> found = std::exchange(violation_, std::nullopt);
  timers_.clear();
  trickle_timer_.cancel();
  trickling_.clear();
  silent_.clear();
  if (process_) {
    process_->pause();
    process_->stop(was_over);
    count(*process_);
    zombies_.push_back(std::move(process_));
  }
  loop_.run_until(
      [this] {
        bury_processes();
        return zombies_.empty();
      },
      seconds(5));
  if (!zombies_.empty()) violate("a process does not end within 5 s");
  leaked_ = !zombies_.empty();
  bool stopped = target_ == nullptr;
  if (target_) {
    heal_disks();
    target_->stop([&](Result<void> done) {
      stopped = true;
      if (!done) violate("the target does not stop: " + done.error().message);
    });
  }
  loop_.run_until([&] { return stopped && old_targets_.empty(); }, seconds(10));
  watch_.cancel();
  loop_.run_for(milliseconds(1));
  leaked_ = leaked_ || !stopped || !old_targets_.empty();
  if (!leaked_) target_.reset();
  if (found) violation_ = std::move(found);
}

RunResult run_seed(std::uint64_t seed, Mutant mutant, bool verbose) {
  const std::size_t before = allocated_bytes();
  RunResult result;
  {
    World world(make_plan(seed, mutant), verbose);
    result = world.run();
  }
  const std::size_t after = allocated_bytes();
  // What is made once and for all in a process is small; everything else belongs to the run.
  if (!result.violation && after > before + kLeftOverMax) {
    result.violation = fmt::format("{} bytes are still allocated after the run", after - before);
  }
  return result;
}

}  // namespace nvmf::simulator
