#include "frontends/fuse/text_files.h"

#include <linux/fuse.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "frontends/fuse/fuse_api.h"
#include "frontends/fuse/limits.h"
#include "frontends/fuse/tree.h"
#include "nvme/check.h"

namespace nvmf::fuse {

TextFiles::TextFiles(transport::Loop& control, std::vector<TextFile> files)
    : control_(control), files_(std::move(files)) {
  NVMF_CHECK(files_.size() <= kTextFilesMax);
}

std::optional<std::size_t> TextFiles::find(std::string_view name) const {
  for (std::size_t i = 0; i < files_.size(); ++i) {
    if (files_[i].name == name) return i;
  }
  return std::nullopt;
}

void TextFiles::open(fuse_req* request, std::size_t i) {
  control_.post([this, request, i] { opened(request, i); });
}

void TextFiles::opened(fuse_req* request, std::size_t i) {
  auto text = std::make_shared<std::string>(files_[i].text());
  if (text->size() > kTextBytesMax) text->resize(kTextBytesMax);
  fuse_open_out out{};
  {
    const std::scoped_lock lock(mutex_);
    if (open_.size() < kTextOpensMax) {
      out.fh = next_handle_++;
      open_.emplace(out.fh, std::move(text));
    }
  }
  if (out.fh == 0) {
    ::fuse_reply_err(request, ENFILE);
    return;
  }
  // Its size is not known before: without direct I/O nothing would be read.
  out.open_flags = FOPEN_DIRECT_IO;
  const int sent = ::fuse_reply_buf(request, reinterpret_cast<const char*>(&out), sizeof out);
  if (sent != 0) release(out.fh);  // nobody will close it
}

void TextFiles::read(fuse_req* request, std::uint64_t handle, std::size_t size_bytes,
                     std::uint64_t offset_bytes) {
  std::shared_ptr<const std::string> text;
  {
    const std::scoped_lock lock(mutex_);
    if (const auto found = open_.find(handle); found != open_.end()) text = found->second;
  }
  if (!text) {
    ::fuse_reply_err(request, EBADF);
    return;
  }
  const std::size_t from = std::min<std::uint64_t>(offset_bytes, text->size());
  ::fuse_reply_buf(request, text->data() + from, std::min(size_bytes, text->size() - from));
}

void TextFiles::release(std::uint64_t handle) {
  const std::scoped_lock lock(mutex_);
  open_.erase(handle);
}

}  // namespace nvmf::fuse
