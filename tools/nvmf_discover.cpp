// nvmf discover, nvmf connect-all, nvmf connect.
#include "nvmf_discover.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>

#include "connect_all.h"
#include "host/discovery.h"
#include "io/reactor.h"
#include "nvme/json_discovery.h"
#include "nvme/print_discovery.h"
#include "tool_child.h"
#include "tool_program.h"

namespace nvmf::tools {

namespace {

constexpr const char* kProgram = "nvmf";

/// A loop of its own for coroutines that are run to their end.
class OwnLoop {
 public:
  static Result<OwnLoop> make() {
    auto reactor = io::make_reactor();
    if (!reactor) return std::unexpected(reactor.error());
    return OwnLoop(std::move(*reactor));
  }
  OwnLoop(OwnLoop&&) = default;
  OwnLoop& operator=(OwnLoop&&) = delete;
  ~OwnLoop() {
    if (reactor_) reactor_->end();
  }
  [[nodiscard]] transport::Loop& loop() { return *reactor_; }

  template <class T>
  T run(host::Task<T> task) {
    std::optional<T> value;
    host::spawn(finish(std::move(task), value, *reactor_));
    reactor_->run();
    return std::move(*value);
  }

 private:
  explicit OwnLoop(std::unique_ptr<io::Reactor> reactor) : reactor_(std::move(reactor)) {}

  template <class T>
  static host::Task<void> finish(host::Task<T> task, std::optional<T>& value,
                                 io::Reactor& reactor) {
    value.emplace(co_await std::move(task));
    reactor.stop();
  }

  std::unique_ptr<io::Reactor> reactor_;
};

/// The log, and what there is to say of records that are left out.
Result<host::DiscoveryLog> read_log(const DiscoverRequest& request) {
  auto own = OwnLoop::make();
  if (!own) return std::unexpected(own.error());
  host::DiscoveryVisit visit(request.connect.params, own->loop());
  auto log = own->run(visit.run());
  if (!log || request.quiet) return log;
  for (const std::string& sentence : log->refused) complain(kProgram, "note: " + sentence);
  if (log->refused_count > log->refused.size()) {
    complain(kProgram, fmt::format("note: {} more records cannot be used and are left out",
                                   log->refused_count - log->refused.size()));
  }
  return log;
}

bool save(const std::vector<std::byte>& bytes, const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "wbe");
  bool good = file != nullptr && std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  int code = errno;
  if (file != nullptr && std::fclose(file) != 0 && good) {
    good = false;
    code = errno;
  }
  if (good) {
    fmt::print("Discovery log is saved to {}\n", path);
  } else {
    complain(kProgram, fmt::format("cannot write {}: {}", path, std::strerror(code)));
  }
  return good;
}

bool show(const host::DiscoveryLog& log, const DiscoverRequest& request) {
  if (!request.raw_file.empty()) return save(log.bytes, request.raw_file);
  switch (request.format) {
    case OutputFormat::json:
      fmt::print("{}\n", nvme::to_json(log.header, log.entries));
      break;
    case OutputFormat::binary:
      std::fwrite(log.bytes.data(), 1, log.bytes.size(), stdout);
      break;
    case OutputFormat::normal:
      fmt::print("{}", nvme::print(log.header, log.entries));
      break;
  }
  return true;
}

bool same_place(const control::Connection& c, const host::ConnectParams& p) {
  return c.subnqn == p.subnqn && c.port == p.port && c.hostnqn == p.hostnqn &&
         host::same_spelling(c.address) == host::same_spelling(p.traddr);
}

host::Task<int> run_child(transport::Loop& loop, std::vector<std::string> words,
                          std::string& output, std::string& errors) {
  std::unique_ptr<ChildProgram> child;
  const int status = co_await host::callback<int>([&](auto done) {
    auto reported = std::make_shared<decltype(done)>(std::move(done));
    auto started = ChildProgram::start(loop, program_beside("nvmf-connect"), words,
                                       [reported](int how) { (*reported)(how); });
    if (started) {
      child = std::move(*started);
    } else {
      errors = "nvmf-connect: " + started.error().message + "\n";
      loop.post([reported] { (*reported)(kExitFailure); });
    }
  });
  if (child) {
    output = child->output();
    errors = child->errors();
  }
  co_return status;
}

/// A connection to the discovery controller that stays. Says its name if it is `told`.
bool stay(const control::RuntimeDir& runtime, const DiscoverRequest& request, bool follow,
          bool told) {
  const host::ConnectParams& p = request.connect.params;
  const auto connections = runtime.connections();
  if (connections && !request.force) {
    for (const control::Connection& c : *connections) {
      if (same_place(c, p)) return true;
    }
  }
  std::vector<std::string> words = address_words({p.traddr, p.port, p.subnqn});
  words.emplace_back("--discovery");
  if (follow) words.emplace_back("--connect-all");
  if (request.force) words.emplace_back("--duplicate-connect");
  words.insert(words.end(), request.connect.words.begin(), request.connect.words.end());
  auto own = OwnLoop::make();
  if (!own) {
    complain(kProgram, own.error().message);
    return false;
  }
  std::string output;
  std::string errors;
  const int status = own->run(run_child(own->loop(), std::move(words), output, errors));
  if (told) fmt::print("{}", output);
  fmt::print(stderr, "{}", errors);
  return status == kExitSuccess;
}

/// Where connections are; nothing, after a word about it, if that cannot be known.
std::optional<control::RuntimeDir> open_runtime() {
  auto runtime = control::RuntimeDir::open();
  if (runtime) return std::move(*runtime);
  complain(kProgram, runtime.error().message);
  return std::nullopt;
}

}  // namespace

int discover(const std::vector<DiscoverRequest>& requests) {
  int status = kExitSuccess;
  for (const DiscoverRequest& request : requests) {
    for (const std::string& note : request.connect.notes) complain(kProgram, note);
    const auto log = read_log(request);
    if (!log) {
      complain(kProgram, log.error().message);
      status = kExitFailure;
      continue;
    }
    if (!show(*log, request)) status = kExitFailure;
    if (!request.persistent) continue;
    const auto runtime = open_runtime();
    const bool told = request.format == OutputFormat::normal;
    if (!runtime || !stay(*runtime, request, false, told)) status = kExitFailure;
  }
  return status;
}

int connect_all(const std::vector<DiscoverRequest>& requests) {
  const auto runtime = open_runtime();
  if (!runtime) return kExitFailure;
  std::size_t answered = 0;
  bool failed = false;
  for (const DiscoverRequest& request : requests) {
    for (const std::string& note : request.connect.notes) complain(kProgram, note);
    auto own = OwnLoop::make();
    if (!own) {
      complain(kProgram, own.error().message);
      return kExitFailure;
    }
    ConnectAllOptions options;
    options.params = request.connect.params;
    options.words = request.connect.words;
    options.persistent = request.persistent;
    options.duplicate = request.connect.duplicate_connect;
    if (request.format == OutputFormat::json) options.words.emplace_back("--output-format=json");
    const ConnectAllVoice voice = {
        .print = [](const std::string& line) { fmt::print("{}\n", line); },
        .complain =
            [&request](const std::string& line) {
              if (request.quiet && line.starts_with("note: ")) return;
              // What nvmf-connect says has its name before it.
              fmt::print(stderr, "{}{}\n",
                         line.starts_with("nvmf-connect: ") ? "" : "nvmf: ", line);
            }};
    ConnectAll all(own->loop(), *runtime, std::move(options), voice);
    const ConnectAllOutcome outcome = own->run(all.run());
    answered += outcome.answered;
    if (outcome.failed != 0) failed = true;
    // After all that, so that it need not do the same at the same time. What has changed since, it
    // sees when it looks for the first time.
    const bool follow = request.persistent && outcome.answered != 0;
    if (follow && !stay(*runtime, request, true, true)) failed = true;
  }
  return answered == 0 || failed ? kExitFailure : kExitSuccess;
}

int connect(std::vector<std::string> words) {
  const std::string program = program_beside("nvmf-connect");
  std::vector<char*> argv;
  std::string name = "nvmf-connect";
  argv.push_back(name.data());
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::signal(SIGPIPE, SIG_DFL);
  ::execvp(program.c_str(), argv.data());
  complain(kProgram, fmt::format("cannot run {}: {}", program, std::strerror(errno)));
  return kExitFailure;
}

}  // namespace nvmf::tools
