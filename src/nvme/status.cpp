#include "nvme/status.h"

#include <fmt/format.h>

#include "nvme/status_words.h"

namespace nvmf::nvme {

std::string_view status_name(Status status, StatusContext context) {
  return status_words(status, context).name;
}

std::string describe(Status status, StatusContext context) {
  std::string text = fmt::format("{} (0x{:03x}", status_name(status, context),
                                 static_cast<unsigned>(status.code()));
  if (status.dnr) text += ", do not retry";
  if (status.crd != 0) text += fmt::format(", retry after CRDT{}", status.crd);
  if (status.more) text += ", more in the error log";
  return text + ")";
}

}  // namespace nvmf::nvme
