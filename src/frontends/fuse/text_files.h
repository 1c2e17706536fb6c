// The text files in .nvmf/: what they say is asked for when one is opened, and stays as it was then
// for as long as it is open.
//
// Threads. open() may be called on any reactor; the text is asked for, and the answer given, on the
// control loop. read() and release() on any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "transport/loop.h"

struct fuse_req;

namespace nvmf::fuse {

struct TextFile {
  std::string name;
  /// Asked on the control loop; to answer without waiting for anything. Cut at kTextBytesMax.
  std::function<std::string()> text;
};

class TextFiles {
 public:
  /// `control` is the loop that asks.
  TextFiles(transport::Loop& control, std::vector<TextFile> files);

  [[nodiscard]] std::size_t count() const { return files_.size(); }
  [[nodiscard]] const std::string& name(std::size_t i) const { return files_[i].name; }
  [[nodiscard]] std::optional<std::size_t> find(std::string_view name) const;

  /// Answers an open; ENFILE when too many are open.
  void open(fuse_req* request, std::size_t i);
  void read(fuse_req* request, std::uint64_t handle, std::size_t size_bytes,
            std::uint64_t offset_bytes);
  void release(std::uint64_t handle);

 private:
  void opened(fuse_req* request, std::size_t i);

  transport::Loop& control_;
  std::vector<TextFile> files_;
  std::mutex mutex_;
  std::map<std::uint64_t, std::shared_ptr<const std::string>> open_;
  std::uint64_t next_handle_ = 1;
};

}  // namespace nvmf::fuse
