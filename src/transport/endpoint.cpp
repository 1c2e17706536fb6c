#include "transport/loop.h"

namespace nvmf::transport {

std::string Endpoint::to_string() const {
  if (is_unix()) return unix_path;
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

}  // namespace nvmf::transport
