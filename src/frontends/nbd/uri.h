// NBD URIs, as the NBD project's doc/uri.md spells them.
#pragma once

#include <string>
#include <string_view>

#include "transport/loop.h"

namespace nvmf::nbd {

/// Where a client finds `export_name` on a server that listens at `at`:
/// "nbd+unix:///nvmf0n1?socket=PATH", "nbd://127.0.0.1:10809/nvmf0n1", "nbd://[::1]:10809/nvmf0n1".
/// Name and path are percent-encoded.
[[nodiscard]] std::string uri(const transport::Endpoint& at, std::string_view export_name);

}  // namespace nvmf::nbd
