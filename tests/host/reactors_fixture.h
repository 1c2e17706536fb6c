// A namespace's devices on several reactors, all of them in virtual time, each with a queue and a
// connection of its own to the fake target; and holds that can be left out.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "host/bring_up.h"
#include "host/delayed_loop.h"
#include "host/fixture.h"

namespace nvmf::test {

enum class Holds {
  shared,     // as it is
  per_device  // the mutant: reactors do not hear of each other's holds
};

class ReactorsTest : public HostTest {
 protected:
  ~ReactorsTest() override { disconnect(); }

  /// `post_delay`: what a hold's posts take at most.
  void connect(std::size_t reactors, Holds how = Holds::shared, Duration post_delay = {}) {
    params.nr_io_queues = static_cast<std::uint32_t>(reactors);
    std::vector<transport::Loop*> loops(reactors, &loop);
    host::spawn(bring_up_all(*this, loops));
    loop.run_until([this] { return association_ != nullptr; }, seconds(10));
    ASSERT_NE(association_, nullptr);
    ASSERT_EQ(association_->queues().size(), reactors);
    std::vector<transport::Loop*> seen;
    for (std::size_t i = 0; i < reactors; ++i) {
      post_loops_.push_back(std::make_unique<DelayedLoop>(loop, post_delay));
      seen.push_back(post_loops_.back().get());
    }
    auto all = host::RangeHolds::make(seen);
    for (std::size_t i = 0; i < reactors; ++i) {
      const bool shared = how == Holds::shared;
      if (!shared) all = host::RangeHolds::make({seen[i]});
      groups_.push_back(std::make_unique<host::QueueGroup>(loop));
      devices_.push_back(std::make_unique<host::NamespaceDevice>(
          association_->namespaces.at(0), *groups_.back(), all, shared ? i : 0));
      holds_.push_back(all);
      groups_.back()->add(*association_->queues()[i].queue);
    }
  }

  /// From now on, bytes of queue `index` (from 0) take so long in each direction.
  void set_latency(std::size_t index, Duration latency) {
    loop.links().at(index + 1)->options.latency = latency;
  }
  /// Everything that is connected is shut and closed; completions are delivered.
  void disconnect() {
    if (association_ == nullptr) return;
    for (const auto& group : groups_) group->shut(EIO, ESHUTDOWN);
    bool closed = false;
    host::spawn(close_all(*this, closed));
    loop.run_until([&] { return closed; }, seconds(60));
    loop.run_for(milliseconds(100));
    devices_.clear();
    groups_.clear();
    holds_.clear();
    post_loops_.clear();
    association_.reset();
  }
  host::NamespaceDevice& device(std::size_t reactor) { return *devices_.at(reactor); }
  int run_on(std::size_t reactor, Request& r) {
    device(reactor).submit(r);
    EXPECT_EQ(r.completions, 0) << "completed inside submit()";
    EXPECT_TRUE(loop.run_until([&] { return r.completions != 0; }, seconds(100)));
    return r.error;
  }
  [[nodiscard]] std::size_t holds_in_force() const {
    std::size_t sum = 0;
    for (std::size_t i = 0; i < holds_.size(); ++i) {
      const bool shared = holds_[i] == holds_[0] && holds_.size() > 1;
      sum += holds_[i]->on(shared ? i : 0).in_force();
    }
    return sum;
  }
  /// What the holds have posted, to all reactors together.
  [[nodiscard]] std::size_t posts() const {
    std::size_t sum = 0;
    for (const auto& l : post_loops_) sum += l->posts;
    return sum;
  }
  std::vector<std::byte>& disk() { return target.namespaces.at(1).bytes; }

  std::vector<std::unique_ptr<host::QueueGroup>> groups_;

 private:
  static host::Task<void> bring_up_all(ReactorsTest& self, std::vector<transport::Loop*> loops) {
    auto made = co_await host::bring_up(self.params, std::move(loops), self.control_);
    if (made) self.association_ = std::move(*made);
    if (self.association_) self.association_->made();  // a lost queue leaves the others alone
  }
  static host::Task<void> close_all(ReactorsTest& self, bool& closed) {
    co_await self.association_->close(Error{"the test is over", 0});
    closed = true;
  }

  host::BringUpControl control_;
  std::unique_ptr<host::Association> association_;
  std::vector<std::unique_ptr<DelayedLoop>> post_loops_;
  std::vector<std::unique_ptr<host::NamespaceDevice>> devices_;
  std::vector<std::shared_ptr<host::RangeHolds>> holds_;
};

}  // namespace nvmf::test
