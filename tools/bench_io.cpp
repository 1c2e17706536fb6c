#include "bench_io.h"

#include <fmt/format.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "bench_canned.h"
#include "host/subsystem.h"
#include "io/reactor_pool.h"

namespace nvmf::tools {
namespace {

using Clock = std::chrono::steady_clock;

/// The load on one reactor. Lives on its thread from start() until `done` was called.
class Worker {
 public:
  Worker(const Workload& workload, host::BlockDevice& device, std::size_t place, std::size_t count,
         std::move_only_function<void()> done)
      : workload_(workload),
        device_(device),
        done_(std::move(done)),
        blocks_(device.info().size_bytes / workload.block_bytes),
        random_(place),
        // Sequential streams begin at equal distances.
        next_(blocks_ / count * place),
        jobs_(workload.depth),
        buffers_(
            std::make_unique<std::byte[]>(std::size_t{workload.depth} * workload.block_bytes)) {
    std::size_t i = 0;
    for (Job& job : jobs_) {
      job.worker = this;
      job.data = buffers_.get() + i++ * workload.block_bytes;
      job.length_bytes = workload.block_bytes;
      job.complete = [](host::BlockRequest& request) {
        Job& mine = static_cast<Job&>(request);
        mine.worker->completed(mine);
      };
    }
  }

  void start(Clock::time_point end) {
    end_ = end;
    now_ = Clock::now();
    for (Job& job : jobs_) issue(job);
  }

  LatencyHistogram latency;
  std::uint64_t commands = 0;
  int error = 0;

 private:
  struct Job : host::BlockRequest {
    Worker* worker = nullptr;
    Clock::time_point started;
  };

  void issue(Job& job) {
    switch (workload_.pattern) {
      case Pattern::read:
      case Pattern::randread:
        job.op = host::BlockOp::read;
        break;
      case Pattern::write:
      case Pattern::randwrite:
        job.op = host::BlockOp::write;
        break;
      case Pattern::randrw:
        job.op = (random_() & 1) != 0 ? host::BlockOp::write : host::BlockOp::read;
        break;
    }
    const std::uint64_t block = workload_.random() ? random_() % blocks_ : next_++ % blocks_;
    job.offset_bytes = block * workload_.block_bytes;
    job.started = now_;
    ++under_way_;
    device_.submit(job);
  }

  void completed(Job& job) {
    --under_way_;
    now_ = Clock::now();
    if (job.error != 0) {
      if (error == 0) error = job.error;
    } else {
      ++commands;
      latency.record(now_ - job.started);
    }
    if (error == 0 && now_ < end_) return issue(job);
    if (under_way_ == 0) done_();
  }

  const Workload& workload_;
  host::BlockDevice& device_;
  std::move_only_function<void()> done_;
  std::uint64_t blocks_;
  std::mt19937_64 random_;
  std::uint64_t next_;
  std::vector<Job> jobs_;
  std::unique_ptr<std::byte[]> buffers_;
  std::uint32_t under_way_ = 0;
  Clock::time_point now_;
  Clock::time_point end_;
};

/// Everything but the workers happens on reactor 0.
class Run final : public host::SubsystemEvents {
 public:
  Run(const IoBench& bench, io::ReactorPool& pool)
      : bench_(bench), pool_(pool), backend_(pool.at(0).backend_name()) {
    std::vector<transport::Loop*> loops;
    loops.reserve(pool.size());
    for (std::size_t i = 0; i < pool.size(); ++i) loops.push_back(&pool.at(i));
    subsystem_ = std::make_unique<host::RemoteSubsystem>(bench.params, std::move(loops), *this);
  }

  Result<void> run() {
    subsystem_->start();
    auto ran = pool_.run();
    pool_.join();
    if (!ran) return ran;
    if (failure_) return std::unexpected(*failure_);
    return {};
  }

  void on_live() override {
    if (auto loaded = load(); !loaded) {
      failure_ = loaded.error();
      subsystem_->stop();
    }
  }

  void on_ended(const Error& reason) override {
    if (reason.code != 0 && !failure_) failure_ = reason;
    pool_.stop();
  }

  /// After run().
  void collect(Figures& figures) const {
    figures.queues = static_cast<std::uint32_t>(workers_.size());
    for (const auto& worker : workers_) {
      figures.commands += worker->commands;
      figures.latency.add(worker->latency);
    }
    figures.bytes = figures.commands * bench_.workload.block_bytes;
    figures.seconds = std::chrono::duration<double>(ended_ - started_).count();
    figures.cpu_seconds = cpu_;
    figures.detail = backend_;
    if (bench_.canned) figures.detail += ", canned responder";
    if (bench_.spin) figures.detail += ", spinning";
  }

 private:
  Result<void> load() {
    if (subsystem_->namespaces().empty()) {
      return fail(fmt::format("{} at {} has no namespace to measure", bench_.params.subnqn,
                              bench_.params.address()),
                  ENODEV);
    }
    const host::BlockInfo& info = subsystem_->namespaces().front()->info;
    const Workload& w = bench_.workload;
    if (w.block_bytes % info.block_bytes != 0 || w.block_bytes > info.size_bytes) {
      return fail(fmt::format("{} has blocks of {} bytes and {} bytes in all: a block size (--bs) "
                              "of {} does not fit",
                              info.name, info.block_bytes, info.size_bytes, w.block_bytes),
                  EINVAL);
    }
    const std::size_t reactors = subsystem_->reactors();
    left_ = reactors;
    for (std::size_t r = 0; r < reactors; ++r) {
      workers_.push_back(
          std::make_unique<Worker>(w, *subsystem_->device(r, info.nsid), r, reactors,
                                   [this] { pool_.at(0).post([this] { worker_done(); }); }));
    }
    cpu_ = process_cpu_seconds();
    started_ = Clock::now();
    const auto end = started_ + std::chrono::duration_cast<Clock::duration>(w.time);
    for (std::size_t r = 0; r < reactors; ++r) {
      pool_.at(r).post([worker = workers_[r].get(), end] { worker->start(end); });
    }
    return {};
  }

  void worker_done() {
    if (--left_ > 0) return;
    ended_ = Clock::now();
    cpu_ = process_cpu_seconds() - cpu_;
    for (const auto& worker : workers_) {
      if (worker->error != 0 && !failure_) {
        failure_ = Error{fmt::format("a request to {} at {} failed: {}", bench_.params.subnqn,
                                     bench_.params.address(), std::strerror(worker->error)),
                         worker->error};
      }
    }
    subsystem_->stop();
  }

  const IoBench& bench_;
  io::ReactorPool& pool_;
  std::string backend_;
  std::unique_ptr<host::RemoteSubsystem> subsystem_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::size_t left_ = 0;
  Clock::time_point started_;
  Clock::time_point ended_;
  double cpu_ = 0;
  std::optional<Error> failure_;
};

}  // namespace

Result<Figures> run_io(IoBench bench) {
  std::optional<CannedResponder> canned;
  if (bench.canned) {
    auto started = CannedResponder::start();
    if (!started) return std::unexpected(started.error());
    canned.emplace(std::move(*started));
    bench.params.traddr = "127.0.0.1";
    bench.params.port = canned->port();
    bench.params.subnqn = CannedResponder::subnqn();
  }
  if (auto valid = bench.params.validate(); !valid) return std::unexpected(valid.error());
  auto pool = io::ReactorPool::make(bench.workload.queues,
                                    {.backend = io::BackendKind::automatic, .spin = bench.spin});
  if (!pool) return std::unexpected(pool.error());
  if (auto threads = (*pool)->start(); !threads) return std::unexpected(threads.error());
  Run run(bench, **pool);
  if (auto done = run.run(); !done) return std::unexpected(done.error());
  Figures figures;
  figures.kind = "io";
  figures.workload = bench.workload;
  run.collect(figures);
  if (canned) figures.peer_cpu_seconds = canned->end();
  return figures;
}

}  // namespace nvmf::tools
