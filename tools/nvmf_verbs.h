// The verbs of nvmf, each with the words it was given. They return the status to exit with.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "nvme/status.h"
#include "tool_target.h"
#include "tool_timers.h"

namespace nvmf::tools {

enum class OutputFormat : std::uint8_t { normal, json, binary };

struct ExplainWords {
  std::vector<std::string> status;             // one, in as many words as it was written in
  std::optional<nvme::StatusContext> context;  // of which kind of command
  bool cqe = false;                            // it is dword 3 of a completion queue entry
  // or one of these; empty: not given
  std::string system_error;  // a name or number of errno
  std::string term_req;      // FES[:FEI]
  std::string connect;       // dword 0 of the completion of a Connect
  OutputFormat format = OutputFormat::normal;
};
/// kExitUsage for a number that nobody can explain.
int explain(const ExplainWords& words);

int list(OutputFormat format);
/// Of one connection, or of all if `name` is empty.
int list_subsys(const std::string& name, OutputFormat format);

struct DisconnectWords {
  std::vector<std::string> names;
  std::string nqn;  // every connection to that subsystem
  bool all = false;
  bool force = false;  // at once; a process that hangs is killed
};
/// Returns when the processes have gone.
int disconnect(const DisconnectWords& words);

struct PolicyWords {
  std::string name;
  TimerWords timers;  // what is to be changed
  OutputFormat format = OutputFormat::normal;
};
int policy(const PolicyWords& words);
/// Returns when it is live again, or after a while.
int reset(const std::string& name);
int accept(const std::string& name);

struct RescanWords {
  std::string name;
  OutputFormat format = OutputFormat::normal;
};
/// Returns when the connection has acted on what it found.
int ns_rescan(const RescanWords& words);

struct EventsWords {
  std::vector<std::string> names;  // connections; empty: all
  bool follow = false;             // what comes, instead of what was
  OutputFormat format = OutputFormat::normal;
};
/// With `follow`, returns when the connections have ended or nobody reads any more.
int events(const EventsWords& words);

struct StatsWords {
  std::vector<std::string> names;  // connections; empty: all
  OutputFormat format = OutputFormat::normal;
  bool openmetrics = false;
};
int stats(const StatsWords& words);

struct TraceWords {
  std::string name;
  std::string file;  // begin to write this one
  bool off = false;  // end the one that is written
};
/// Without a file and `off`: says whether one is written.
int trace(const TraceWords& words);

}  // namespace nvmf::tools
