// Two sockets that are connected with each other: one for a loop, the other for somebody who takes
// file descriptors, such as the kernel.
#pragma once

#include <memory>
#include <string>

#include "io/unique_fd.h"
#include "nvme/result.h"
#include "transport/loop.h"

namespace nvmf::io {

struct SocketPair {
  UniqueFd ours;
  UniqueFd theirs;  // blocking
};

/// Unix stream sockets, close-on-exec. Their buffers take `buffer_bytes` each if the system allows
/// it, else as much as it does.
Result<SocketPair> make_socket_pair(int buffer_bytes);

/// Makes `ours` something that a loop adopts. `peer` is who is at the other end, for messages.
std::unique_ptr<transport::Incoming> incoming_of(UniqueFd ours, std::string peer);

/// Whether all that was sent on a unix socket has been read at the other end.
bool is_read(int fd);

/// Whether nobody holds the other end any more.
bool is_deserted(int fd);

}  // namespace nvmf::io
