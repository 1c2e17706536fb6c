// What a controller has to tell its host unasked: which asynchronous events wait, and which are
// silent. Base 2.1 §5.1.2.
//
// An event is told once; then its kind is silent until the host has read its log page without
// Retain Asynchronous Event. What happens meanwhile is in the log. Whether a host has enabled an
// event is for the controller to ask (features.h), and it has the requests.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "nvme/admin.h"
#include "nvme/log_pages.h"

namespace nvmf::controller {

/// Each has one log page, and one silence.
enum class EventKind : std::uint8_t { namespaces, firmware, ana, discovery, smart, error };
inline constexpr std::size_t kEventKinds = 6;

class AsyncEvents {
 public:
  /// `info` is of those that the kind has; of a kind that waits already the first one stays.
  void raise(EventKind kind, std::uint8_t info);
  /// The next event to tell, which is silent from now on.
  std::optional<nvme::AsyncEvent> take();
  /// The page was read without Retain Asynchronous Event: its kind may be told again.
  void log_read(nvme::LogPage page);
  /// Nothing waits and nothing is silent, as after a reset.
  void reset() { kinds_ = {}; }

  /// The bit of Asynchronous Event Configuration that enables a notice; 0: SMART has a bit for each
  /// warning, and errors are always enabled.
  [[nodiscard]] static std::uint32_t config_bit(EventKind kind);

 private:
  struct State {
    bool waits = false;
    bool told = false;
    std::uint8_t info = 0;
  };
  std::array<State, kEventKinds> kinds_{};
};

}  // namespace nvmf::controller
