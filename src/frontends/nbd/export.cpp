#include "frontends/nbd/export.h"

#include <algorithm>

#include "nvme/check.h"

namespace nvmf::nbd {

Export make_export(std::vector<host::BlockDevice*> devices) {
  NVMF_CHECK(!devices.empty());
  const host::BlockInfo& info = devices.front()->info();
  return {{info.name, std::to_string(info.nsid)}, std::move(devices), info.nsid};
}

void ExportList::offer(const Export& e) {
  const auto it = std::ranges::find(exports_, e.nsid, &Export::nsid);
  if (it == exports_.end()) return add(e);
  *it = e;
}

void ExportList::withdraw(std::uint32_t nsid) {
  const auto it = std::ranges::find(exports_, nsid, &Export::nsid);
  if (it != exports_.end()) it->offered = false;
}

const Export* ExportList::find(std::string_view name) const {
  const auto has_name = [name](const Export& e) {
    return name.empty() || std::ranges::find(e.names, name) != e.names.end();
  };
  const auto it = std::ranges::find_if(exports_, has_name);
  return it == exports_.end() || !it->offered ? nullptr : &*it;
}

}  // namespace nvmf::nbd
