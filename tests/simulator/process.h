// A host process of the simulation: one RemoteSubsystem on several reactors, and the clients that
// use its devices. Killing it leaves what the system does for a dead process; what is left of the
// object is wound up out of sight.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "host/block_device.h"
#include "host/subsystem.h"
#include "simulator/checker.h"
#include "simulator/plan.h"
#include "simulator/reactor_loop.h"
#include "simulator/trace.h"

namespace nvmf::simulator {

/// What all processes of a run share.
struct Common {
  const Plan& plan;
  sim::VirtualLoop& loop;
  Trace& trace;
  Checker& checker;
  /// Says what must not be; the first one counts.
  std::function<void(std::string)> violate;
  /// The same for data that is wrong.
  std::function<void(std::string)> violate_data;
  std::size_t granule_bytes = 64;
  std::size_t requests_left = 0;  // that may still be made by clients
  /// Errors of a kind that nobody has to explain any more: commands were refused on purpose.
  bool errors_excused = false;
};

class Process final : public host::SubsystemEvents, public ReactorLoop::Owner {
 public:
  Process(Common& common, Random random, std::size_t number, host::ConnectParams params);
  ~Process();  // after gone()
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void start() { subsystem_->start(); }
  /// kill -9. Its connections get the system's farewell.
  void kill();
  void stop(bool force);
  [[nodiscard]] host::RemoteSubsystem& subsystem() { return *subsystem_; }

  // Clients.
  void add_client();
  /// Any one goes away, whatever it had asked for.
  void remove_client();
  /// No client makes further requests.
  void pause() { paused_ = true; }
  void resume();
  /// Reads everything, piece by piece. Once nothing is outstanding.
  void read_all();

  [[nodiscard]] bool was_live() const { return was_live_; }
  [[nodiscard]] bool live() const { return live_; }
  [[nodiscard]] bool killed() const { return killed_; }
  [[nodiscard]] const std::optional<Error>& ended() const { return ended_; }
  [[nodiscard]] std::size_t outstanding() const { return outstanding_; }
  [[nodiscard]] std::uint64_t failed() const { return failed_; }
  [[nodiscard]] std::uint64_t losses() const { return subsystem_->health().losses; }
  [[nodiscard]] std::size_t clients() const;
  /// Nothing of it is under way: it may be destroyed.
  [[nodiscard]] bool gone() const { return ended_.has_value() && outstanding_ == 0; }
  [[nodiscard]] bool owns(const std::string& local) const { return locals_.contains(local); }
  /// What a crash record would say of it, if it was live.
  [[nodiscard]] const std::optional<host::SilenceFacts>& facts() const { return facts_; }
  /// To be asked now and then: whatever has waited for too long.
  void check_deadlines();
  void set_policy(const host::LossPolicy& policy);

  // ReactorLoop::Owner and SubsystemEvents
  bool may_connect() override { return !killed_; }
  void connecting(const std::string& local) override { locals_.insert(local); }
  void on_live() override;
  void on_lost(const Error& reason) override;
  void on_live_again() override;
  void on_ended(const Error& reason) override;

 private:
  struct Client;
  struct Slot;

  void next_request(Slot& slot);
  void draw(Slot& slot);
  void submit(Slot& slot);
  static void completed(host::BlockRequest& request);
  void finish(Slot& slot);
  void finish_read(Slot& slot);
  void think(Slot& slot);
  void retire();
  [[nodiscard]] bool error_allowed(const Slot& slot) const;
  [[nodiscard]] host::BlockDevice* device(std::size_t reactor, std::size_t ns);
  void learn_facts();

  Common& common_;
  Random random_;
  std::size_t number_;
  host::ConnectParams params_;
  std::vector<std::unique_ptr<ReactorLoop>> loops_;
  std::unique_ptr<host::RemoteSubsystem> subsystem_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::set<std::string> locals_;
  std::size_t next_client_ = 1;
  std::size_t outstanding_ = 0;
  std::uint64_t failed_ = 0;
  bool was_live_ = false;
  bool live_ = false;
  bool killed_ = false;
  bool paused_ = false;
  bool stopping_ = false;
  bool io_has_failed_ = false;  // fast I/O fail has passed at least once
  std::optional<Instant> lost_at_;
  Instant live_since_{};
  Instant stop_asked_at_{};
  std::optional<Error> ended_;
  Instant ended_at_{};
  std::optional<host::SilenceFacts> facts_;
};

}  // namespace nvmf::simulator
