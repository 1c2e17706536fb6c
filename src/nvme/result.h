// Errors as values.
//
// Whatever can fail for a reason that a user should read returns Result<T>. The message is a whole
// sentence without a full stop: what was refused, by whom (address, NQN, queue) and, where we know,
// what to try. An NVMe status is data, not an Error: it becomes one only where nobody further up
// could act on it.
#pragma once

#include <cerrno>
#include <expected>
#include <string>
#include <utility>

namespace nvmf {

struct Error {
  std::string message;
  int code = EIO;  // an errno value, for callers that must answer with one
};

template <class T>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(std::string message, int code = EIO) {
  return std::unexpected(Error{std::move(message), code});
}

}  // namespace nvmf
