// nvmf-sim: runs the simulator. usage: nvmf-sim --help
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host/log.h"
#include "simulator/world.h"

namespace {

using namespace nvmf;
using simulator::Mutant;

constexpr std::string_view kUsage =
    R"(usage: nvmf-sim [--seed N [--verbose] | --seeds A..B | --forever | --mutants]
                [--mutant NAME] [--jobs J] [--max-seeds N]

Host and target in virtual time: a seed says what the network and the controller do, and a checker
judges what became of the data.

  --seed N       one run; --verbose writes its history
  --seeds A..B   these runs, both ends included
  --forever      runs from a new beginning each time, until told to stop
  --mutants      for each broken rule: a seed that shows it, among the first --max-seeds (2000),
                 with which the unbroken program passes
  --mutant NAME  break one rule: no-fence, cqt-zero-no-wait, one-katt, close-not-reset,
                 restart-no-wait, no-fence-on-error, retries-unordered, no-identity-check,
                 flush-made-up
  --jobs J       that many at a time (1)

Exit status: 0 if all is well, 1 after a violation, 2 for bad usage.
)";

/// A run that takes longer than this has a loop in it.
constexpr unsigned kSecondsPerRun = 120;

struct Options {
  std::optional<std::uint64_t> seed;
  std::uint64_t first = 1;
  std::uint64_t last = 0;
  bool forever = false;
  bool mutants = false;
  bool verbose = false;
  Mutant mutant = Mutant::none;
  unsigned jobs = 1;
  std::uint64_t max_seeds = 2000;
};

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<Options> parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    const auto value = [&]() -> std::string_view { return i + 1 < argc ? argv[++i] : ""; };
    if (arg == "--verbose") {
      o.verbose = true;
    } else if (arg == "--forever") {
      o.forever = true;
    } else if (arg == "--mutants") {
      o.mutants = true;
    } else if (arg == "--seed") {
      o.seed = number(value());
      if (!o.seed) return std::nullopt;
    } else if (arg == "--seeds") {
      const std::string_view range = value();
      const std::size_t dots = range.find("..");
      if (dots == range.npos) return std::nullopt;
      const auto first = number(range.substr(0, dots));
      const auto last = number(range.substr(dots + 2));
      if (!first || !last || *last < *first) return std::nullopt;
      o.first = *first;
      o.last = *last;
    } else if (arg == "--mutant") {
      const auto mutant = simulator::mutant_named(value());
      if (!mutant) return std::nullopt;
      o.mutant = *mutant;
    } else if (arg == "--jobs") {
      const auto jobs = number(value());
      if (!jobs || *jobs == 0 || *jobs > 256) return std::nullopt;
      o.jobs = static_cast<unsigned>(*jobs);
    } else if (arg == "--max-seeds") {
      const auto most = number(value());
      if (!most) return std::nullopt;
      o.max_seeds = *most;
    } else {
      return std::nullopt;
    }
  }
  if (!o.seed && o.last == 0 && !o.forever && !o.mutants) return std::nullopt;
  return o;
}

std::string replay(std::uint64_t seed, Mutant mutant) {
  const std::string broken =
      mutant == Mutant::none ? "" : fmt::format(" --mutant {}", simulator::name_of(mutant));
  return fmt::format("nvmf-sim --seed {}{} --verbose", seed, broken);
}

/// What the processes of a batch share.
struct Board {
  std::atomic<std::uint64_t> next;
  std::atomic<std::uint64_t> runs;
  std::atomic<std::uint64_t> violations;
  std::atomic<std::uint64_t> hash;  // a sum, so that the order is of no matter
  std::atomic<std::uint64_t> requests;
  std::atomic<std::uint64_t> failed;
  std::atomic<std::uint64_t> ghosts;
  std::atomic<std::uint64_t> losses;
  std::atomic<std::uint64_t> found;
  std::array<std::atomic<std::uint64_t>, 256> at;  // which seed each process is at; 0: none
};

struct Batch {
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  Mutant mutant = Mutant::none;
  unsigned jobs = 1;
  /// Until a seed shows the mutant, and nothing without it.
  bool until_found = false;
};

void work(const Batch& batch, Board& board, unsigned me) {
  for (;;) {
    if (batch.until_found && board.found != 0) break;
    const std::uint64_t seed = board.next++;
    if (seed > batch.last) break;
    board.at[me] = seed;
    alarm(kSecondsPerRun);
    const simulator::RunResult result = simulator::run_seed(seed, batch.mutant, false);
    alarm(0);
    ++board.runs;
    board.hash += result.hash * (2 * seed + 1);
    board.requests += result.requests;
    board.failed += result.failed;
    board.ghosts += result.ghosts;
    board.losses += result.losses;
    if (!result.violation) continue;
    if (batch.until_found) {
      if (!result.of_data) continue;  // other promises may be broken too: that shows nothing
      const simulator::RunResult whole = simulator::run_seed(seed, Mutant::none, false);
      if (!whole.violation) {
        std::uint64_t none = 0;
        board.found.compare_exchange_strong(none, seed);
        continue;
      }
    }
    ++board.violations;
    fmt::print("seed {}: {}\n  replay: {}\n", seed, *result.violation,
               replay(seed, batch.until_found ? Mutant::none : batch.mutant));
    std::fflush(stdout);
  }
  board.at[me] = 0;
}

/// Runs a batch in processes of its own: one that dies of a failed check names its seed.
void run_batch(const Batch& batch, Board& board) {
  board.next = batch.first;
  board.found = 0;
  std::vector<pid_t> children(batch.jobs, -1);
  const auto start = [&](unsigned me) {
    std::fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
      work(batch, board, me);
      std::fflush(stdout);
      _exit(0);
    }
    children[me] = pid;
  };
  for (unsigned me = 0; me < batch.jobs; ++me) start(me);
  for (unsigned left = batch.jobs; left > 0;) {
    int status = 0;
    const pid_t pid = wait(&status);
    const auto found = std::ranges::find(children, pid);
    if (pid < 0 || found == children.end()) break;
    const auto me = static_cast<unsigned>(found - children.begin());
    const std::uint64_t seed = board.at[me].exchange(0);
    if (status == 0 || seed == 0) {
      --left;
      continue;
    }
    ++board.violations;
    ++board.runs;
    fmt::print("seed {}: the run {}\n  replay: {}\n", seed,
               WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? "does not end"
                                                                  : "died of a failed check",
               replay(seed, batch.mutant));
    start(me);  // the others are still to be run
  }
}

void reset(Board& board) {
  board.next = 0;
  board.runs = 0;
  board.violations = 0;
  board.hash = 0;
  board.requests = 0;
  board.failed = 0;
  board.ghosts = 0;
  board.losses = 0;
}

int one(const Options& o) {
  if (o.verbose) {
    setvbuf(stdout, nullptr, _IOLBF, 0);  // nothing is lost if a check fails
    host::set_log_sink([](host::LogLevel, std::string_view sentence) {
      fmt::print("{:>15}   host: {}\n", "", sentence);
    });
  }
  const simulator::RunResult result = simulator::run_seed(*o.seed, o.mutant, o.verbose);
  fmt::print(
      "seed {}: hash {:016x}, {} requests, {} failed, {} losses, {} ghosts, {} ms, {} KiB more\n",
      *o.seed, result.hash, result.requests, result.failed, result.losses, result.ghosts,
      result.lasted / std::chrono::milliseconds(1), result.growth / 1024);
  if (!result.violation) return 0;
  fmt::print("seed {}: {}\n  replay: {}\n", *o.seed, *result.violation, replay(*o.seed, o.mutant));
  return 1;
}

int many(const Options& o, Board& board) {
  const auto begin = std::chrono::steady_clock::now();
  run_batch({.first = o.first, .last = o.last, .mutant = o.mutant, .jobs = o.jobs}, board);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  fmt::print(
      "seeds {} to {}: {} runs, {} violations, hash {:016x}, {} requests, {} failed, {} losses, {} "
      "ghosts, {:.1f} s\n",
      o.first, o.last, board.runs.load(), board.violations.load(), board.hash.load(),
      board.requests.load(), board.failed.load(), board.losses.load(), board.ghosts.load(),
      took.count());
  return board.violations == 0 ? 0 : 1;
}

int mutants(const Options& o, Board& board) {
  int status = 0;
  for (std::size_t i = 1; i < simulator::kMutants; ++i) {
    const auto mutant = static_cast<Mutant>(i);
    if (o.mutant != Mutant::none && mutant != o.mutant) continue;
    reset(board);
    run_batch(
        {.first = 1, .last = o.max_seeds, .mutant = mutant, .jobs = o.jobs, .until_found = true},
        board);
    if (board.violations != 0) status = 1;  // with the seed's own program, too
    const std::uint64_t seed = board.found;
    if (seed == 0) {
      fmt::print("{}: not found in {} seeds\n", simulator::name_of(mutant), o.max_seeds);
      status = 1;
      continue;
    }
    const simulator::RunResult broken = simulator::run_seed(seed, mutant, false);
    fmt::print("{}: found by seed {} after {} runs: {}\n", simulator::name_of(mutant), seed,
               board.runs.load(), broken.violation.value_or("(not again)"));
    if (!broken.violation) status = 1;
    std::fflush(stdout);
  }
  return status;
}

int forever(const Options& o, Board& board) {
  constexpr std::uint64_t kChunk = 10'000;
  Options chunk = o;
  chunk.first =
      static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()) /
      1000;
  for (;; chunk.first += kChunk) {
    chunk.last = chunk.first + kChunk - 1;
    reset(board);
    if (const int status = many(chunk, board); status != 0) return status;
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--help") {
    fmt::print("{}", kUsage);
    return 0;
  }
  const auto options = parse(argc, argv);
  if (!options) {
    fmt::print(stderr, "{}", kUsage);
    return 2;
  }
  if (options->seed) return one(*options);
  void* const shared =
      mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) {
    fmt::print(stderr, "nvmf-sim: no memory to share with the runs\n");
    return 1;
  }
  Board& board = *new (shared) Board{};
  if (options->mutants) return mutants(*options, board);
  return options->forever ? forever(*options, board) : many(*options, board);
}
