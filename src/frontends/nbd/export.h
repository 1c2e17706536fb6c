// What an NBD server offers: the namespaces, under the names that clients may ask for.
#pragma once

#include <cstddef>
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
};

/// The Export of a namespace, named after its BlockInfo. `devices` has one per reactor, at least
/// one.
[[nodiscard]] Export make_export(std::vector<host::BlockDevice*> devices);

/// Fixed once a server has it, and then read by all its threads.
class ExportList {
 public:
  /// The first one added is the default export.
  void add(Export e) { exports_.push_back(std::move(e)); }
  /// "" is the first. nullptr if there is none of that name.
  [[nodiscard]] const Export* find(std::string_view name) const;
  [[nodiscard]] const std::vector<Export>& all() const { return exports_; }

 private:
  std::vector<Export> exports_;
};

}  // namespace nvmf::nbd
