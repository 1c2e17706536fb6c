#include "host/events.h"

namespace nvmf::host {

std::string_view name_of(EventKind kind) {
  static constexpr std::array<std::string_view, kEventKinds> kNames = {"namespaces_changed",
                                                                       "firmware_activation",
                                                                       "error",
                                                                       "smart",
                                                                       "discovery_changed",
                                                                       "ana_changed",
                                                                       "other",
                                                                       "connection_lost",
                                                                       "connection_live",
                                                                       "attempt_failed",
                                                                       "namespace_stopped",
                                                                       "namespace_resumed",
                                                                       "namespace_resized",
                                                                       "namespaces_not_served",
                                                                       "namespace_added",
                                                                       "namespace_removed",
                                                                       "namespace_protected",
                                                                       "namespace_writable"};
  return kNames[static_cast<std::size_t>(kind)];
}

}  // namespace nvmf::host
