// What an NBD server offers: the namespaces, under the names that clients may ask for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "host/block_device.h"

namespace nvmf::nbd {

struct Export {
  /// "nvmf0n1", then "1" (the bare NSID). The first is the canonical one, which LIST shows.
  std::vector<std::string> names;
  /// One per reactor, in the order of the server's loops. Not owned; they outlive the server.
  std::vector<host::BlockDevice*> devices;
  std::uint32_t nsid = 0;
  bool offered = true;  // its namespace is there
};

/// The Export of a namespace, named after its BlockInfo. `devices` has one per reactor, at least
/// one.
[[nodiscard]] Export make_export(std::vector<host::BlockDevice*> devices);

/// Each of a server's threads has one of its own. Not thread-safe.
class ExportList {
 public:
  /// The first one added is the default export, whatever comes or goes later: who asked for it by
  /// "" must not get another disk the next time.
  void add(Export e) { exports_.push_back(std::move(e)); }
  /// There is this one from now on; in its old place if it was there before.
  void offer(const Export& e);
  /// Nobody finds it any more, until it is offered again.
  void withdraw(std::uint32_t nsid);
  /// "" is the default export. nullptr if none of that name is offered.
  [[nodiscard]] const Export* find(std::string_view name) const;
  /// Also those that are not offered now.
  [[nodiscard]] const std::vector<Export>& all() const { return exports_; }

 private:
  std::vector<Export> exports_;
};

}  // namespace nvmf::nbd
