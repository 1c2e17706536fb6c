#include "connect_all.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>
#include <utility>

#include "nvme/text.h"
#include "tool_program.h"
#include "transport/timer.h"

namespace nvmf::tools {

namespace {

using Addresses = Result<std::vector<std::string>>;

void each_line(const std::string& text, const std::function<void(const std::string&)>& say) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty()) say(nvme::printable(line));
  }
}

}  // namespace

std::vector<std::string> address_words(const host::DiscoveryPlace& at) {
  return {"--traddr=" + at.traddr, fmt::format("--trsvcid={}", at.port), "--nqn=" + at.subnqn};
}

ConnectAll::ConnectAll(transport::Loop& loop, const control::RuntimeDir& runtime,
                       ConnectAllOptions options, ConnectAllVoice voice)
    : loop_(loop), runtime_(runtime), options_(std::move(options)), voice_(std::move(voice)) {}

host::Task<ConnectAllOutcome> ConnectAll::run(std::optional<host::DiscoveryLog> first) {
  outcome_ = {};
  work_.clear();
  co_await explore(std::move(first));
  std::vector<host::Task<void>> workers;
  for (std::size_t i = 0; i < kConnectsAtOnce; ++i) workers.push_back(worker());
  co_await host::when_all(std::move(workers));
  co_return outcome_;
}

void ConnectAll::stop() {
  stopped_ = true;
  if (visit_ != nullptr) visit_->stop();
  for (ChildProgram* child : children_) child->kill();
}

/// Asks one discovery controller after the other and puts what is to be connected into work_.
host::Task<void> ConnectAll::explore(std::optional<host::DiscoveryLog> first) {
  host::DiscoveryWalk walk({options_.params.traddr, options_.params.port, options_.params.subnqn});
  while (const auto next = walk.next()) {
    if (stopped_) co_return;
    ++outcome_.asked;
    Result<host::DiscoveryLog> log = fail("not asked");
    if (first) {
      log = *std::exchange(first, std::nullopt);
    } else {
      log = co_await ask(next->at);
    }
    if (stopped_) co_return;
    if (!log) {
      voice_.complain(log.error().message);
      continue;
    }
    ++outcome_.answered;
    if (options_.persistent && next->persistent) work_.push_back({next->at, true});
    walk.take(*next, *log);
    for (const std::string& note : walk.take_notes()) voice_.complain("note: " + note);
  }
  const auto& found = walk.found();
  const std::size_t count = std::min(found.size(), kConnectAllMax);
  for (std::size_t i = 0; i < count; ++i) work_.push_back({found[i].at, false});
  if (count < found.size()) {
    voice_.complain(fmt::format(
        "{} subsystems were found, of which only the first {} are connected", found.size(), count));
  }
}

host::Task<Result<host::DiscoveryLog>> ConnectAll::ask(const host::DiscoveryPlace& at) {
  host::ConnectParams params = options_.params;
  params.traddr = at.traddr;
  params.port = at.port;
  params.subnqn = at.subnqn;
  host::DiscoveryVisit visit(std::move(params), loop_);
  visit_ = &visit;
  auto log = co_await visit.run();
  visit_ = nullptr;
  co_return log;
}

host::Task<void> ConnectAll::worker() {
  while (!stopped_ && !work_.empty()) {
    Work work = std::move(work_.front());
    work_.pop_front();
    co_await connect(std::move(work));
  }
}

host::Task<void> ConnectAll::connect(Work work) {
  if (!options_.duplicate && co_await connected(work.at)) co_return;
  if (work.discovery && referred_ >= kReferredMax) {
    voice_.complain(
        fmt::format("{} wants a connection that stays, which it does not get: there have been {} "
                    "for referrals, and there are no more",
                    work.at.to_string(), kReferredMax));
    co_return;
  }
  std::string output;
  std::string errors;
  const int status = co_await run_child(work, output, errors);
  if (stopped_) co_return;
  // Somebody else may have been faster, and that is as good.
  if (status != kExitSuccess && !options_.duplicate && co_await connected(work.at)) co_return;
  each_line(output, voice_.print);
  each_line(errors, voice_.complain);
  if (status == kExitSuccess) {
    ++outcome_.connected;
    if (work.discovery) ++referred_;
    co_return;
  }
  ++outcome_.failed;
  if (status > 128) {
    voice_.complain(fmt::format("nvmf-connect to {} was ended by signal {}", work.at.to_string(),
                                status - 128));
  }
}

/// The status that it ended with.
host::Task<int> ConnectAll::run_child(const Work& work, std::string& output, std::string& errors) {
  std::vector<std::string> words = address_words(work.at);
  if (work.discovery) words.insert(words.end(), {"--discovery", "--connect-all", "--referred"});
  words.insert(words.end(), options_.words.begin(), options_.words.end());
  std::unique_ptr<ChildProgram> child;
  transport::Timer patience(loop_.timers(), [&child] {
    if (child) child->kill();
  });
  const int status = co_await host::callback<int>([&](auto done) {
    auto reported = std::make_shared<decltype(done)>(std::move(done));
    auto started = ChildProgram::start(loop_, program_beside("nvmf-connect"), words,
                                       [reported](int how) { (*reported)(how); });
    if (!started) {
      errors = "nvmf-connect: " + started.error().message;
      loop_.post([reported] { (*reported)(kExitFailure); });
      return;
    }
    child = std::move(*started);
    children_.insert(child.get());
    patience.arm(loop_.now() + kConnectPatience);
  });
  patience.cancel();
  if (child) {
    children_.erase(child.get());
    output = child->output();
    errors = child->errors();
  }
  co_return status;
}

/// Whether there is a connection of this host to this place.
host::Task<bool> ConnectAll::connected(const host::DiscoveryPlace& at) {
  const auto connections = runtime_.connections();
  if (!connections) co_return false;
  for (const control::Connection& c : *connections) {
    if (c.subnqn != at.subnqn || c.port != at.port || c.hostnqn != options_.params.hostnqn) {
      continue;
    }
    const std::string there = host::same_spelling(c.address);
    if (there == at.traddr) co_return true;
    // One that was made to a name is one to its addresses.
    const auto addresses = co_await host::callback<Addresses>(
        [&](auto done) { loop_.resolve(c.address, std::move(done)); });
    if (!addresses) continue;
    for (const std::string& address : *addresses) {
      if (host::same_spelling(address) == at.traddr) co_return true;
    }
  }
  co_return false;
}

}  // namespace nvmf::tools
