#include "host/health.h"

namespace nvmf::host {

const char* name_of(ConnectionState state) {
  switch (state) {
    case ConnectionState::connecting:
      return "connecting";
    case ConnectionState::live:
      return "live";
    case ConnectionState::lost:
      return "lost";
    case ConnectionState::reconnecting:
      return "reconnecting";
    case ConnectionState::failing:
      return "failing";
    case ConnectionState::gone:
      return "gone";
  }
  return "unknown";
}

}  // namespace nvmf::host
