// Files of the simulated machine: byte vectors in memory.
#include <algorithm>
#include <cstring>
#include <utility>

#include "nvme/check.h"
#include "sim/virtual_loop.h"

namespace nvmf::sim {

using transport::FileOp;

class VirtualFile final : public transport::File {
 public:
  VirtualFile(VirtualLoop& loop, std::string path, std::shared_ptr<std::vector<std::byte>> bytes,
              bool writable)
      : loop_(loop), path_(std::move(path)), bytes_(std::move(bytes)), writable_(writable) {}
  ~VirtualFile() override { NVMF_CHECK(*under_way_ == 0); }

  void submit(FileOp& op) override {
    NVMF_CHECK(op.complete != nullptr);
    ++*under_way_;
    loop_.at(loop_.now() + loop_.file_latency, [this, &op] {
      op.error = loop_.file_fault ? loop_.file_fault(path_, op) : 0;
      if (op.error == 0) op.error = perform(op);
      --*under_way_;
      op.complete(op);  // may destroy the file
    });
  }

  [[nodiscard]] std::uint64_t size_bytes() const override { return bytes_->size(); }

 private:
  int perform(FileOp& op) {
    const std::uint64_t end = op.offset_bytes + op.length_bytes;
    if (op.kind != FileOp::Kind::read && !writable_) return EBADF;
    const bool grows = op.kind == FileOp::Kind::write || op.kind == FileOp::Kind::write_durable ||
                       op.kind == FileOp::Kind::zero;
    if (grows && end > bytes_->size()) bytes_->resize(end);
    const std::uint64_t from = std::min<std::uint64_t>(op.offset_bytes, bytes_->size());
    const std::uint64_t n = std::min<std::uint64_t>(op.length_bytes, bytes_->size() - from);
    std::byte* place = bytes_->data() + from;
    switch (op.kind) {
      case FileOp::Kind::read:
        if (end > bytes_->size()) return ENODATA;
        if (n > 0) std::memcpy(op.data, place, n);
        break;
      case FileOp::Kind::write:
      case FileOp::Kind::write_durable:
        if (n > 0) std::memcpy(place, op.data, n);
        break;
      case FileOp::Kind::zero:
      case FileOp::Kind::punch:
        std::fill_n(place, n, std::byte{0});
        break;
      case FileOp::Kind::sync:
        break;
    }
    op.done_bytes = op.length_bytes;
    return 0;
  }

  VirtualLoop& loop_;
  std::string path_;
  std::shared_ptr<std::vector<std::byte>> bytes_;
  bool writable_;
  // Apart from the object, so that a loop which ends with operations under way drops them in peace.
  std::shared_ptr<std::uint64_t> under_way_ = std::make_shared<std::uint64_t>(0);
};

Result<std::unique_ptr<transport::File>> VirtualLoop::open_file(const std::string& path,
                                                                bool writable) {
  const auto it = files_.find(path);
  if (it == files_.end()) return fail("there is no file " + path + " (ENOENT)", ENOENT);
  return std::make_unique<VirtualFile>(*this, path, it->second, writable);
}

void VirtualLoop::register_file(const std::string& path, std::vector<std::byte> bytes) {
  files_[path] = std::make_shared<std::vector<std::byte>>(std::move(bytes));
}

std::vector<std::byte>& VirtualLoop::file_bytes(const std::string& path) {
  const auto it = files_.find(path);
  NVMF_CHECK(it != files_.end());
  return *it->second;
}

}  // namespace nvmf::sim
