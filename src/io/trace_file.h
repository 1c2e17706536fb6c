// A pcapng file that is written while packets come, by a thread of its own.
//
// packet() copies into a buffer of kTraceBufferBytes and never waits for the file: what finds no
// room is dropped and counted, in the file with the next packet and in its last block. The format:
// draft-ietf-opsawg-pcapng, one section in our byte order, one interface of raw IP packets with
// time stamps in nanoseconds.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/unique_fd.h"
#include "nvme/result.h"

namespace nvmf::io {

/// At 1 GB/s, 16 ms of a disk that does not keep up; more would only end later.
inline constexpr std::size_t kTraceBufferBytes = 16u * 1024 * 1024;

struct TraceCounts {
  std::uint64_t packets = 0;  // taken
  std::uint64_t dropped = 0;  // for want of room
  std::uint64_t bytes = 0;    // written to the file
  std::string error;          // why no more is written; empty: nothing is wrong
};

/// Appends to `out`. Lengths are the blocks' own.
void append_section_header(std::vector<std::byte>& out, const std::string& program);
/// One packet, in pieces. `dropped` of them were lost before it.
void append_packet(std::vector<std::byte>& out, std::uint64_t time_ns,
                   std::span<const iovec> pieces, std::uint64_t dropped);
void append_interface_statistics(std::vector<std::byte>& out, std::uint64_t time_ns,
                                 std::uint64_t received, std::uint64_t dropped);

/// A new file, or an existing regular one of ours that is emptied; only its owner may read it, and
/// symbolic links are not followed. The error says what is in the way.
Result<UniqueFd> open_trace_file(const std::string& path);

class TraceFile {
 public:
  /// Fails if the system gives no more threads.
  static Result<std::shared_ptr<TraceFile>> make(UniqueFd fd,
                                                 std::size_t buffer_bytes = kTraceBufferBytes);
  /// Does finish(), and waits for the writer no longer than a second.
  ~TraceFile();

  /// From any thread. False if it was dropped, or the trace has ended.
  bool packet(std::span<const iovec> pieces);
  /// No more packets are taken; what there is is written, soon. From any thread.
  void finish();
  /// Waits until everything is written, at most `seconds`; whether it is.
  bool wait_written(unsigned seconds);
  [[nodiscard]] TraceCounts counts() const;

 private:
  struct Shared;
  explicit TraceFile(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  static void write(const std::shared_ptr<Shared>& shared);
  std::shared_ptr<Shared> shared_;
};

}  // namespace nvmf::io
