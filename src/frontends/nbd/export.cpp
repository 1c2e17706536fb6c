#include "frontends/nbd/export.h"

#include <algorithm>

#include "nvme/check.h"

namespace nvmf::nbd {

Export make_export(std::vector<host::BlockDevice*> devices) {
  NVMF_CHECK(!devices.empty());
  const host::BlockInfo& info = devices.front()->info();
  return {{info.name, std::to_string(info.nsid)}, std::move(devices)};
}

const Export* ExportList::find(std::string_view name) const {
  if (name.empty()) return exports_.empty() ? nullptr : &exports_.front();
  const auto has_name = [name](const Export& e) {
    return std::ranges::find(e.names, name) != e.names.end();
  };
  const auto it = std::ranges::find_if(exports_, has_name);
  return it == exports_.end() ? nullptr : &*it;
}

}  // namespace nvmf::nbd
