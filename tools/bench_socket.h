// Blocking TCP on loopback for the two peers of nvmf-bench that stand outside the house: the floor
// and the canned responder. Their cost is what is left when nothing of ours is in between.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "io/unique_fd.h"
#include "nvme/result.h"

namespace nvmf::tools {

/// Listens on 127.0.0.1 at a free port.
Result<io::UniqueFd> listen_loopback(std::uint16_t& port);
Result<io::UniqueFd> accept_loopback(int listener);
Result<io::UniqueFd> connect_loopback(std::uint16_t port);

/// False when the connection has ended. Blocks.
bool send_all(int fd, std::span<iovec> vectors);
bool send_all(int fd, const void* data, std::size_t bytes);
bool receive_all(int fd, void* data, std::size_t bytes);
/// At least one byte; 0 when the connection has ended.
std::size_t receive_some(int fd, void* data, std::size_t bytes);

}  // namespace nvmf::tools
