// A run of the simulator: a target with its disks, a network, one host process after another, what
// goes wrong among them, and the checker that judges what became of the data.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "controller/target.h"
#include "sim/virtual_loop.h"
#include "simulator/checker.h"
#include "simulator/disk_model.h"
#include "simulator/plan.h"
#include "simulator/process.h"
#include "simulator/trace.h"

namespace nvmf::simulator {

struct RunResult {
  std::optional<std::string> violation;
  bool of_data = false;    // and it is data that is wrong, not only a promise about time
  std::uint64_t hash = 0;  // over everything that happened
  Duration lasted{};       // virtual
  std::uint64_t requests = 0;
  std::uint64_t failed = 0;
  std::uint64_t ghosts = 0;
  std::uint64_t losses = 0;
  std::size_t growth = 0;  // bytes of memory in use, from the first association to the end
};

inline constexpr const char* kSubnqn = "nqn.2024-05.org.nvmf:simulated";

class World {
 public:
  World(Plan plan, bool verbose);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  /// Once.
  RunResult run();

 private:
  // The target.
  controller::NamespaceConfig namespace_config(std::size_t ns, bool foreign_disk);
  void start_target(bool foreign_disks);
  /// It is gone at once, with everything that it knew of connections.
  void end_target(bool power, bool silent);
  void restart_target(Duration after, bool foreign_disks);

  // The host.
  Process& start_process();
  void bury_processes();
  void end_process();
  void count(const Process& process);

  // What goes wrong.
  void make_trouble(Trouble trouble);
  void network_trouble(Trouble trouble);
  void target_trouble(Trouble trouble);
  void command_trouble(Trouble trouble);
  void refuse_commands();
  void put_all_back();
  void put_back(std::size_t ns, std::uint32_t nsid);
  void host_trouble(Trouble trouble);
  void trickle();
  void trickle_on();
  void heal();
  void heal_disks();
  [[nodiscard]] std::vector<std::shared_ptr<sim::Link>> host_links();

  // The way of a run.
  void work();
  void settle();
  void finish();
  void read_back();
  void look_at_disks();
  void close();
  void run_for(Duration d);
  bool run_until(const std::function<bool()>& done, Duration most);
  void after(Duration d, std::move_only_function<void()> what);
  void violate(std::string sentence);
  void violate_data(std::string sentence);
  void give(std::size_t requests);
  void watch();
  [[nodiscard]] bool over() const { return violation_.has_value(); }

  Plan plan_;
  Random random_;
  sim::VirtualLoop loop_;
  Trace trace_;
  Checker checker_;
  std::optional<std::string> violation_;
  Common common_;

  std::vector<std::unique_ptr<DiskModel>> disks_;    // by namespace
  std::vector<std::unique_ptr<DiskModel>> foreign_;  // what may stand in their place
  std::unique_ptr<controller::Target> target_;
  std::vector<std::unique_ptr<controller::Target>> old_targets_;
  bool target_up_ = false;
  bool foreign_is_up_ = false;
  Instant unreachable_until_{};  // attempts to connect are not answered
  std::uint32_t target_queues_;
  std::uint32_t target_entries_;

  std::unique_ptr<Process> process_;
  std::vector<std::unique_ptr<Process>> zombies_;
  std::size_t next_process_ = 1;
  std::optional<host::SilenceFacts> unclean_;  // a process that was killed may have sent writes

  std::vector<std::shared_ptr<sim::Link>> trickling_;
  std::vector<std::shared_ptr<sim::Link>> silent_;  // for good
  Duration trickle_gap_{};
  transport::Timer trickle_timer_;

  bool leaked_ = false;  // something did not end

  std::vector<std::unique_ptr<transport::Timer>> timers_;
  transport::Timer watch_;
  std::size_t allocated_at_first_ = 0;
  RunResult result_;
};

/// Plans, runs and judges seed `seed`.
RunResult run_seed(std::uint64_t seed, Mutant mutant, bool verbose);

}  // namespace nvmf::simulator
