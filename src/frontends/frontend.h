// A local face of a connection's namespaces: the NBD server, the FUSE file system, the kernel's NBD
// devices. What it is told while namespaces come, change and go.
//
// Threads. Everything here happens on the control loop (loops[0]); what a frontend does with a
// device happens on the reactor that the device belongs to. Loops and devices outlive the frontend,
// also those of a namespace that has gone: their requests fail then, and go on if the same disk
// comes back under its NSID.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "host/block_device.h"

namespace nvmf::frontends {

enum class DiskState : std::uint8_t {
  live,     // requests are carried out
  waiting,  // the target is lost, or it is not sure to be the same disk: requests wait
  failing,  // likewise, and they fail by now
};

/// A namespace as faces have it.
struct Disk {
  /// As it is now. A device's own info(), to be read on its reactor, soon says the same.
  host::BlockInfo info;
  DiskState state = DiskState::live;
  /// One per reactor, in the order of the loops. The same for as long as the connection lasts.
  std::vector<host::BlockDevice*> devices;
};

class Frontend {
 public:
  virtual ~Frontend() = default;

  /// There is this namespace: at the start, when one is added later, or when one that had gone is
  /// back (the same devices then).
  virtual void attached(const Disk& disk) = 0;
  /// The controller has removed it: it is to be offered to nobody from now on. Whoever has it open
  /// keeps it, and sees errors.
  virtual void detached(std::uint32_t nsid) = 0;
  /// Its size, whether it may be written, or its state are as here now.
  virtual void changed(const Disk& disk) = 0;

  /// Nobody new is let in, and what is under way may finish within the frontend's own grace; after
  /// that the devices are not used any more, and `on_stopped` is called, once, not inside. That
  /// also waits for the devices to complete what they have, which is theirs to bound.
  virtual void stop(std::move_only_function<void()> on_stopped) = 0;
  /// Nothing is waited for any more: whoever still waits gets an error at once. Also before stop().
  virtual void hurry() {}
};

}  // namespace nvmf::frontends
