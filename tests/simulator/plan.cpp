#include "simulator/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace nvmf::simulator {

namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr const char* kMutantNames[] = {"none",
                                        "no-fence",
                                        "cqt-zero-no-wait",
                                        "one-katt",
                                        "close-not-reset",
                                        "restart-no-wait",
                                        "no-fence-on-error",
                                        "retries-unordered",
                                        "no-identity-check",
                                        "flush-made-up"};
static_assert(std::size(kMutantNames) == kMutants);

constexpr const char* kTroubleNames[] = {"none",
                                         "cut all",
                                         "cut one",
                                         "black hole",
                                         "deaf",
                                         "late and dark",
                                         "trickle",
                                         "host timeout",
                                         "false reset",
                                         "crash",
                                         "power loss",
                                         "other limits",
                                         "swapped disk",
                                         "stall",
                                         "refused commands",
                                         "fatal status",
                                         "lost keep-alives",
                                         "closed queue",
                                         "removed namespace",
                                         "kill host",
                                         "stop host",
                                         "reset host",
                                         "new policy",
                                         "client leaves"};

struct Weighted {
  Trouble trouble;
  unsigned weight;
};
constexpr Weighted kTroubles[] = {
    {Trouble::cut_all, 10},
    {Trouble::cut_one, 8},
    {Trouble::black_hole, 8},
    {Trouble::deaf, 6},
    {Trouble::late_dark, 10},
    {Trouble::trickle, 18},
    {Trouble::host_timeout, 5},
    {Trouble::false_reset, 4},
    {Trouble::crash, 10},
    {Trouble::power_loss, 10},
    {Trouble::other_limits, 4},
    {Trouble::swap_disk, 4},
    {Trouble::stall, 6},
    {Trouble::kill_host, 8},
    {Trouble::stop_host, 2},
    {Trouble::reset_host, 4},
    {Trouble::new_policy, 3},
    {Trouble::leave, 16},
    {Trouble::refuse_commands, 8},
    {Trouble::fatal_status, 4},
    {Trouble::keep_alives_lost, 4},
    {Trouble::close_queue, 5},
    {Trouble::remove_namespace, 4},
};

Trouble draw_trouble(Random& random, const Plan& plan) {
  unsigned sum = 0;
  for (const Weighted& w : kTroubles) sum += w.weight;
  std::uint64_t at = random.below(sum);
  for (const Weighted& w : kTroubles) {
    if (at >= w.weight) {
      at -= w.weight;
      continue;
    }
    // Only whoever distrusts a reset is safe from a false one.
    if (w.trouble == Trouble::false_reset && plan.trust_peer_close) return Trouble::cut_all;
    return w.trouble;
  }
  return Trouble::cut_all;
}

void draw_machines(Plan& p, Random& random) {
  p.reactors = random.between(1, 3);
  p.queues = static_cast<std::uint32_t>(p.reactors + random.below(2));
  p.queue_size = random.one_of({16U, 32U, 64U});
  p.target_queues = static_cast<std::uint32_t>(random.between(1, 4));
  p.target_entries = random.one_of({16U, 32U, 128U});
  p.in_capsule_bytes = random.one_of({0U, 4096U, 8192U, 8192U});
  p.header_digest = random.percent(20);
  p.data_digest = random.percent(20);
  p.namespaces = random.percent(25) ? 2 : 1;
  p.block_bytes = random.percent(25) ? 4096 : 512;
  p.blocks = random.between(32, 128);
  p.volatile_cache = random.percent(50);
  p.retry_delays = random.percent(30);
  p.keep_alive_ms =
      static_cast<std::uint32_t>(random.between(3, random.percent(70) ? 10 : 20) * 100);
  // Mostly noticeable beside the rest of the fence.
  p.linger = random.percent(80) ? random.between(milliseconds(100), milliseconds(1500))
                                : random.between(milliseconds(1), milliseconds(100));
  p.linger = milliseconds(p.linger / milliseconds(1));
  p.cqt_ms = random.percent(50) ? static_cast<std::uint16_t>(p.linger / milliseconds(1)) : 0;
}

void draw_policy(Plan& p, Random& random) {
  if (random.percent(40)) p.fast_io_fail = random.between(milliseconds(0), milliseconds(2000));
  if (random.percent(15)) p.ctrl_loss = random.between(milliseconds(500), milliseconds(5000));
  if (p.fast_io_fail && p.ctrl_loss && *p.fast_io_fail > *p.ctrl_loss) p.fast_io_fail.reset();
  // Without keep-alive silence lifts no fence, ever: somebody has to lose patience.
  if (p.fast_io_fail && random.percent(8)) p.keep_alive_ms = 0;
  p.reconnect_delay = random.between(milliseconds(100), milliseconds(1000));
  p.command_timeout = random.between(milliseconds(1000), milliseconds(4000));
  p.trust_peer_close = !random.percent(15);
  using host::Unflushed;
  p.unflushed =
      random.one_of({Unflushed::trust, Unflushed::trust, Unflushed::fail, Unflushed::replay});
}

void draw_network(Plan& p, Random& random) {
  p.pipe.random_split = random.percent(15);
  p.pipe.max_chunk = random.percent(10) ? random.between(100, 5000) : SIZE_MAX;
  p.pipe.latency = random.percent(70) ? random.between(microseconds(1), microseconds(300))
                                      : random.between(microseconds(300), milliseconds(20));
  p.pipe.window_bytes = random.percent(10) ? random.between(3000, 20'000) : 256 * 1024;
  p.pipe.post_receives = random.percent(30);
  p.pipe.send_hold =
      random.percent(20) ? Duration(microseconds(random.between(1, 500))) : Duration{};
  p.pipe.reset_is_close = p.mutant == Mutant::close_not_reset;
  p.post_delay = random.percent(50) ? random.between(Duration{}, microseconds(200)) : Duration{};
  p.disk_lag = random.percent(70) ? Duration(microseconds(random.between(10, 500)))
                                  : random.between(milliseconds(1), milliseconds(30));
  p.hang_percent = random.percent(50) ? static_cast<unsigned>(random.between(1, 10)) : 0;
}

void draw_work(Plan& p, Random& random) {
  p.clients = random.between(1, 4);
  p.depth = random.between(1, 4);
  p.requests = random.between(30, 120);
  p.hot_blocks = random.between(2, 12);
  p.think = random.between(milliseconds(1), milliseconds(60));
  p.flush_percent = p.volatile_cache ? 15 : 3;
  p.fua_percent = p.volatile_cache ? 15 : 3;
  p.unaligned_percent = random.percent(60) ? static_cast<unsigned>(random.between(5, 40)) : 0;
  p.read_percent = static_cast<unsigned>(random.between(15, 50));
}

}  // namespace

const char* name_of(Mutant mutant) {
  return kMutantNames[static_cast<std::size_t>(mutant)];
}

std::optional<Mutant> mutant_named(std::string_view name) {
  for (std::size_t i = 0; i < kMutants; ++i) {
    if (name == kMutantNames[i]) return static_cast<Mutant>(i);
  }
  return std::nullopt;
}

const char* name_of(Trouble trouble) {
  return kTroubleNames[static_cast<std::size_t>(trouble)];
}

Plan make_plan(std::uint64_t seed, Mutant mutant) {
  // A mutant's plan is that of the seed: only what is broken differs.
  Random random(seed * 2 + 1);
  Plan p;
  p.seed = seed;
  p.mutant = mutant;
  draw_machines(p, random);
  draw_policy(p, random);
  draw_network(p, random);
  draw_work(p, random);
  const std::size_t troubles = random.percent(3) ? 0 : random.between(1, 3);
  for (std::size_t i = 0; i < troubles; ++i) p.troubles.push_back(draw_trouble(random, p));
  // Power that is lost after something else shows what was not really flushed.
  if (p.volatile_cache && random.percent(40)) p.troubles.push_back(Trouble::power_loss);
  return p;
}

std::string describe(const Plan& p) {
  std::string troubles;
  for (const Trouble t : p.troubles) {
    troubles += fmt::format("{}{}", troubles.empty() ? "" : ", ", name_of(t));
  }
  constexpr const char* kUnflushed[] = {"trust", "fail", "replay"};
  const auto ms = [](Duration d) { return static_cast<double>(d.count()) / 1e6; };
  return fmt::format(
      "{} reactors, {} queues of {}, {} namespaces of {} blocks of {} bytes, {}, KATO {} ms, CQT "
      "{} "
      "ms, lingers {} ms, unflushed {}, fast I/O fail {}, controller loss {}, command timeout {} "
      "ms, latency {} "
      "ms, disk lag {} ms, {} % hang, {} clients of depth {}, {} requests, {} hot blocks; "
      "troubles: {}",
      p.reactors, p.queues, p.queue_size, p.namespaces, p.blocks, p.block_bytes,
      p.volatile_cache ? "volatile cache" : "no cache", p.keep_alive_ms, p.cqt_ms, ms(p.linger),
      kUnflushed[static_cast<std::size_t>(p.unflushed)],
      p.fast_io_fail ? fmt::format("{} ms", ms(*p.fast_io_fail)) : "off",
      p.ctrl_loss ? fmt::format("{} ms", ms(*p.ctrl_loss)) : "off", ms(p.command_timeout),
      ms(p.pipe.latency), ms(p.disk_lag), p.hang_percent, p.clients, p.depth, p.requests,
      p.hot_blocks, troubles.empty() ? "none" : troubles);
}

}  // namespace nvmf::simulator
