#include "controller/file_disk.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace nvmf::controller {

using transport::FileOp;

Result<std::unique_ptr<FileDisk>> FileDisk::open(transport::Loop& loop, const std::string& path,
                                                 std::uint32_t block_bytes, bool read_only) {
  auto file = loop.open_file(path, !read_only);
  if (!file) return std::unexpected(std::move(file.error()));
  const std::uint64_t size = (*file)->size_bytes();
  if (size < block_bytes) {
    return fail(fmt::format("The file {} has {} bytes, less than one block of {} bytes; make it "
                            "larger, for example with truncate -s",
                            path, size, block_bytes),
                EINVAL);
  }
  if (size % block_bytes != 0) {
    return fail(fmt::format("The file {} has {} bytes, which is no multiple of the block size of "
                            "{} bytes; change its size or give another block=",
                            path, size, block_bytes),
                EINVAL);
  }
  return std::unique_ptr<FileDisk>(new FileDisk(std::move(*file), read_only));
}

FileDisk::FileDisk(std::unique_ptr<transport::File> file, bool read_only)
    : file_(std::move(file)), size_bytes_(file_->size_bytes()), read_only_(read_only) {
  for (Slot& slot : slots_) {
    slot.disk = this;
    slot.FileOp::complete = &FileDisk::on_complete;
    slot.next_free = free_;
    free_ = &slot;
  }
}

Result<void> FileDisk::resize(std::uint64_t size_bytes) {
  if (size_bytes > file_->size_bytes()) {
    return fail(fmt::format("The file of this namespace has {} bytes, too few for {}: make it "
                            "larger, and swap the namespace for the same file",
                            file_->size_bytes(), size_bytes),
                ENOSPC);
  }
  size_bytes_ = size_bytes;
  return {};
}

void FileDisk::submit(DiskOp& op) {
  op.next = nullptr;
  if (free_ == nullptr) {
    (waiting_last_ != nullptr ? waiting_last_->next : waiting_first_) = &op;
    waiting_last_ = &op;
    return;
  }
  Slot& slot = *free_;
  free_ = slot.next_free;
  start(slot, op);
}

void FileDisk::extents(DiskExtents& query) {
  // The file itself may have become smaller: what is not there is not said to be a hole.
  const std::uint64_t size = file_->size_bytes();
  const std::uint64_t end = query.offset_bytes + query.length_bytes;
  if (end > size) return Disk::extents(query);
  std::uint64_t at = query.offset_bytes;
  query.count = 0;
  query.error = 0;
  while (at < end) {
    const transport::FileRange data = file_->next_data(at);
    at = std::min(data.begin, end);
    if (at == end || query.count == query.found.size()) break;
    const std::uint64_t stop = std::min(data.end, end);
    query.found[query.count++] = {at, stop - at};
    at = stop;
  }
  query.examined_bytes = at - query.offset_bytes;
  query.complete(query);
}

void FileDisk::start(Slot& slot, DiskOp& op) {
  slot.op = &op;
  FileOp& file = slot;
  switch (op.kind) {
    case DiskOp::Kind::read:
      file.kind = FileOp::Kind::read;
      break;
    case DiskOp::Kind::write:
      file.kind = op.fua ? FileOp::Kind::write_durable : FileOp::Kind::write;
      break;
    case DiskOp::Kind::flush:
      file.kind = FileOp::Kind::sync;
      break;
    case DiskOp::Kind::write_zeroes:
      file.kind = op.deallocate ? FileOp::Kind::punch : FileOp::Kind::zero;
      break;
    case DiskOp::Kind::deallocate:
      file.kind = FileOp::Kind::punch;
      break;
  }
  file.data = op.data;
  file.offset_bytes = op.offset_bytes;
  file.length_bytes = op.length_bytes;
  file.error = 0;
  file.done_bytes = 0;
  file_->submit(file);
}

void FileDisk::on_complete(FileOp& file) {
  Slot& slot = static_cast<Slot&>(file);
  slot.disk->complete(slot);
}

void FileDisk::complete(Slot& slot) {
  DiskOp& op = *slot.op;
  op.error = slot.error;
  // Zeroes and holes are made by fallocate, which has no durable form: a sync follows.
  const bool fallocated =
      op.kind == DiskOp::Kind::write_zeroes || op.kind == DiskOp::Kind::deallocate;
  if (op.error == 0 && op.fua && fallocated && slot.kind != FileOp::Kind::sync) {
    slot.kind = FileOp::Kind::sync;
    slot.done_bytes = 0;
    file_->submit(slot);
    return;
  }
  if (waiting_first_ != nullptr) {
    DiskOp& next = *waiting_first_;
    waiting_first_ = next.next;
    if (waiting_first_ == nullptr) waiting_last_ = nullptr;
    start(slot, next);
  } else {
    slot.next_free = free_;
    free_ = &slot;
  }
  op.complete(op);
}

}  // namespace nvmf::controller
