// Connects to everything that a discovery controller, and those that it refers to, know of: each
// connection is a process of its own, nvmf-connect. For `nvmf connect-all`, and for a connection to
// a discovery controller that stays and does the same again when the log changes.
//
// What is connected already, by whomever, is left alone. What has gone from the log, too: its
// connection notices by itself.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "control/runtime_dir.h"
#include "host/discovery.h"
#include "tool_child.h"

namespace nvmf::tools {

struct ConnectAllOptions {
  /// Where to begin, and what connections to discovery controllers are like.
  host::ConnectParams params;
  /// Options of every connection that is made, "--name=value".
  std::vector<std::string> words;
  /// Discovery controllers that ask for it in the log (EPCSD) get a connection that stays.
  bool persistent = false;
  /// Also where there is a connection already.
  bool duplicate = false;
};

/// Where what is to be said goes; each is one line, fit to be shown.
struct ConnectAllVoice {
  std::function<void(const std::string&)> print;     // what nvmf-connect prints
  std::function<void(const std::string&)> complain;  // what went wrong, or was skipped
};

struct ConnectAllOutcome {
  std::size_t asked = 0;      // discovery controllers
  std::size_t answered = 0;   // of these
  std::size_t connected = 0;  // subsystems, by us, now
  std::size_t failed = 0;
};

/// Connections that stay made for referrals, in the life of one ConnectAll: whoever writes the logs
/// must not decide how many processes there are here.
inline constexpr std::size_t kReferredMax = 64;
/// Subsystems connected to in one run: more names than that there are not for connections.
inline constexpr std::size_t kConnectAllMax = control::kDefaultNamesMax;
/// nvmf-connect processes at the same time: each has half a dozen threads while it begins.
inline constexpr std::size_t kConnectsAtOnce = 4;
/// Then one is killed: its own limits end it long before.
inline constexpr Duration kConnectPatience = std::chrono::seconds(120);

class ConnectAll {
 public:
  /// All on the loop's thread. `runtime` outlives this.
  ConnectAll(transport::Loop& loop, const control::RuntimeDir& runtime, ConnectAllOptions options,
             ConnectAllVoice voice);

  /// Once at a time. `first`: the log of the first controller, if somebody has just read it.
  host::Task<ConnectAllOutcome> run(std::optional<host::DiscoveryLog> first = std::nullopt);
  /// Ends run() soon: nothing more is begun, what is under way is called off.
  void stop();

 private:
  struct Work {
    host::DiscoveryPlace at;
    bool discovery = false;
  };

  host::Task<void> explore(std::optional<host::DiscoveryLog> first);
  host::Task<Result<host::DiscoveryLog>> ask(const host::DiscoveryPlace& at);
  host::Task<void> worker();
  host::Task<void> connect(Work work);
  host::Task<int> run_child(const Work& work, std::string& output, std::string& errors);
  host::Task<bool> connected(const host::DiscoveryPlace& at);

  transport::Loop& loop_;
  const control::RuntimeDir& runtime_;
  ConnectAllOptions options_;
  ConnectAllVoice voice_;
  ConnectAllOutcome outcome_;
  std::deque<Work> work_;
  host::DiscoveryVisit* visit_ = nullptr;
  std::set<ChildProgram*> children_;
  std::size_t referred_ = 0;
  bool stopped_ = false;
};

/// "--traddr=…", "--trsvcid=…", "--nqn=…": one word each, whatever a peer has put in them.
std::vector<std::string> address_words(const host::DiscoveryPlace& at);

}  // namespace nvmf::tools
