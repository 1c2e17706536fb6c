// The command line of nvmf-connect as values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "host/params.h"
#include "transport/loop.h"

namespace nvmf::tools {

/// Block devices of the kernel.
struct NbdDeviceOption {
  /// The first namespace gets /dev/nbdN, the others what follows; nothing: any that are free.
  std::optional<std::uint32_t> index;
};

struct ConnectOptions {
  host::ConnectParams params;            // checked; `name` may be empty, hostnqn and hostid are not
  std::vector<transport::Endpoint> nbd;  // empty: a unix socket in the runtime directory
  std::string fuse;                      // absolute; empty: none
  bool allow_other = false;              // with `fuse`
  std::optional<NbdDeviceOption> nbd_device;
  std::string pcap;         // absolute; empty: none
  std::string run;          // empty: none
  bool foreground = false;  // also with `run`
  bool duplicate_connect = false;
  bool json = false;     // print what is served as one JSON object
  bool verbose = false;  // in the foreground: also what is merely worth knowing
  /// The subsystem is a discovery subsystem: no namespaces, no I/O queues.
  bool discovery = false;
  bool connect_all = false;  // and every subsystem in its log is to be connected to
  bool referred = false;     // with connect_all: made for a referral, makes no others for referrals
  /// With connect_all: the options that each such connection has, "--name=value".
  std::vector<std::string> words;
  std::vector<std::string> notes;  // about options that have no effect here
};

/// Fills in `options`, or says on stdout or stderr what there is to say and returns the status to
/// exit with.
std::optional<int> parse_connect_options(int argc, char** argv, ConnectOptions& options);

/// "auto" or "/dev/nbdN".
Result<NbdDeviceOption> parse_nbd_device(const std::string& text);

/// "unix:PATH" or "tcp:ADDR:PORT"; a relative path is made absolute.
Result<transport::Endpoint> parse_nbd_endpoint(const std::string& text);

}  // namespace nvmf::tools
