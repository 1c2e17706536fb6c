#include "controller/nbd_disk.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "nvme/check.h"
#include "nvme/text.h"

namespace nvmf::controller {

namespace {

bool changes(const DiskOp& op) {
  return op.kind != DiskOp::Kind::read && op.kind != DiskOp::Kind::flush;
}

double seconds(Duration time) {
  return std::chrono::duration<double>(time).count();
}

}  // namespace

NbdDisk::NbdDisk(transport::Loop& loop, NbdDiskOptions options)
    : loop_(loop),
      options_(std::move(options)),
      zeroes_(kNbdZeroBufferBytes),
      tick_(loop.timers(), [this] { tick(); }) {}

NbdDisk::~NbdDisk() {
  NVMF_CHECK(free_.size() == jobs_.size());
}

void NbdDisk::log(const std::string& line) const {
  if (options_.log) options_.log(line);
}

std::uint32_t NbdDisk::block_bytes_min() const {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(export_.block_bytes_min, 4096));
}

// ---- the server

void NbdDisk::open(std::move_only_function<void(Result<void>)> opened) {
  opened_ = std::move(opened);
  add_slot().link->connect();
}

NbdDisk::Slot& NbdDisk::add_slot() {
  auto slot = std::make_unique<Slot>();
  NbdLinkUser& user = *this;
  slot->link = std::make_unique<NbdLink>(loop_, options_.uri, user);
  slot->retry = std::make_unique<transport::Timer>(loop_.timers(),
                                                   [link = slot->link.get()] { link->connect(); });
  slots_.push_back(std::move(slot));
  return *slots_.back();
}

NbdDisk::Slot& NbdDisk::slot_of(const NbdLink& link) {
  return **std::ranges::find(slots_, &link, [](const auto& slot) { return slot->link.get(); });
}

bool NbdDisk::connected() const {
  return std::ranges::any_of(slots_, [](const auto& slot) { return slot->link->ready(); });
}

/// What a namespace can be made of, and which blocks it has then.
Result<void> NbdDisk::first_look(const NbdExport& seen) {
  const std::string name = nvme::printable(options_.uri.text);
  block_bytes_ = options_.block_bytes.value_or(seen.block_bytes_min > 512 ? 4096 : 512);
  if (seen.block_bytes_min > block_bytes_) {
    const bool may_be_larger = seen.block_bytes_min <= 4096;
    return fail(fmt::format("The NBD server {} takes no less than {} bytes at a time, more than a "
                            "block of {} bytes; {}",
                            name, seen.block_bytes_min, block_bytes_,
                            may_be_larger ? "give block=4096"
                                          : "nbdkit's blocksize filter makes it take less"),
                EINVAL);
  }
  if (seen.payload_bytes_max < block_bytes_) {
    return fail(fmt::format("The NBD server {} takes no more than {} bytes at a time, less than a "
                            "block of {} bytes",
                            name, seen.payload_bytes_max, block_bytes_),
                EINVAL);
  }
  if (seen.size_bytes < block_bytes_) {
    return fail(fmt::format("The export of the NBD server {} has {} bytes, less than one block of "
                            "{} bytes",
                            name, seen.size_bytes, block_bytes_),
                EINVAL);
  }
  if (seen.size_bytes % block_bytes_ != 0) {
    return fail(fmt::format("The export of the NBD server {} has {} bytes, which is no multiple of "
                            "the block size of {} bytes; give another block=, or round it off in "
                            "the server (nbdkit --filter=truncate round-down={})",
                            name, seen.size_bytes, block_bytes_, block_bytes_),
                EINVAL);
  }
  return {};
}

Result<void> NbdDisk::same_export(const NbdExport& seen) const {
  std::string what;
  if (seen.size_bytes < size_bytes_) {
    what = fmt::format("has {} bytes where it had {}", seen.size_bytes, size_bytes_);
  } else if (seen.read_only != export_.read_only) {
    what = seen.read_only ? "is read-only, which it was not" : "is not read-only any more";
  } else if (seen.block_bytes_min > block_bytes_ || seen.payload_bytes_max < block_bytes_) {
    what = fmt::format("does not take blocks of {} bytes any more", block_bytes_);
  } else if (seen.flush != export_.flush) {
    what = seen.flush ? "has a cache to flush, which it had not" : "cannot be flushed any more";
  } else {
    return {};
  }
  return fail(fmt::format("it is back with another export, which {}", what), EMEDIUMTYPE);
}

void NbdDisk::first_ready(NbdLink& link) {
  const auto opened = [this](Result<void> outcome) {
    std::exchange(opened_, nullptr)(std::move(outcome));
  };
  if (auto good = first_look(link.exported()); !good) return opened(std::move(good));
  export_ = link.exported();
  size_bytes_ = export_.size_bytes;
  while (export_.multi_conn && slots_.size() < kNbdLinks) add_slot();
  slot_of(link).ready_at = loop_.now();
  use_several(link);
  opened({});
}

/// Connections beside the one that tells: as many as the server allows.
void NbdDisk::use_several(const NbdLink& first) {
  for (const auto& slot : slots_) {
    if (slot->link.get() == &first) continue;
    if (!export_.multi_conn) {
      slot->retry->cancel();
      slot->link->drop({"the server takes one connection only", EBUSY});
    } else if (slot->link->idle() && !slot->retry->armed()) {
      slot->retry->arm(loop_.now());
    }
  }
}

void NbdDisk::nbd_ready(NbdLink& link) {
  if (opened_) return first_ready(link);
  if (auto same = same_export(link.exported()); !same) return link.drop(same.error());
  Slot& slot = slot_of(link);
  slot.ready_at = loop_.now();
  export_ = link.exported();
  while (export_.multi_conn && slots_.size() < kNbdLinks) add_slot();
  if (down_since_) {
    log(fmt::format("The NBD server {} is back after {:.1f} s", nvme::printable(options_.uri.text),
                    seconds(loop_.now() - *down_since_)));
    down_since_.reset();
    last_refusal_.clear();
  }
  use_several(link);
  pump();
}

void NbdDisk::try_again(Slot& slot) {
  // It does not want to be served by several: one of the others does.
  if (!export_.multi_conn && connected()) return;
  constexpr std::chrono::seconds kStood{1};  // a connection that was worth something
  const bool stood = slot.ready_at != Instant{} && loop_.now() - slot.ready_at >= kStood;
  slot.ready_at = {};
  slot.pause =
      stood ? Duration{} : std::clamp<Duration>(slot.pause * 2, kNbdRetryFirst, kNbdRetryLast);
  slot.retry->arm(loop_.now() + slot.pause);
}

void NbdDisk::nbd_lost(NbdLink& link, std::vector<NbdRequest*> unanswered, const Error& why,
                       bool by_server) {
  if (opened_) {
    return std::exchange(opened_, nullptr)(
        fail(fmt::format("The NBD server {} cannot be used: {}; check that it runs and serves that "
                         "export, for example with nbdinfo",
                         nvme::printable(options_.uri.text), why.message),
             why.code));
  }
  const Instant now = loop_.now();
  for (NbdRequest* request : unanswered) {
    Job& job = static_cast<Job&>(*request);
    job.lost_at = now;
    ++job.losses;
    if (changes(*job.op) && !job.flushing) {
      job.state = State::held;
      job.safe_at = now + (by_server ? kNbdQuiesceClosed : kNbdQuiesceSilent);
      held_.push_back(&job);
    } else {
      job.state = State::waiting;
      waiting_.push_front(&job);
    }
  }
  try_again(slot_of(link));
  if (!connected()) {
    server_lost(why);
    // What a write without FUA has put in its cache, for a flush to follow, may be gone.
    for (const auto& job : jobs_) {
      if (job->op == nullptr || job->state == State::sent || !job->op->fua || export_.fua) continue;
      job->done_bytes = 0;
      job->flushing = false;
    }
  }
  pump();
}

void NbdDisk::server_lost(const Error& why) {
  const std::string name = nvme::printable(options_.uri.text);
  if (down_since_) {
    if (why.code != EMEDIUMTYPE || why.message == last_refusal_) return;
    last_refusal_ = why.message;
    return log(fmt::format("The NBD server {} is not used: {}", name, why.message));
  }
  down_since_ = loop_.now();
  std::string lost;
  if (export_.flush && writes_ > flushed_) {
    lost = fmt::format("; {} writes since the last flush may be lost with it", writes_ - flushed_);
    flushed_ = writes_;
    owes_error_ = options_.fail_unflushed;
  }
  log(fmt::format("The NBD server {} was lost: {}{}", name, why.message, lost));
}

// ---- operations

void NbdDisk::submit(DiskOp& op) {
  if (op.length_bytes > size_bytes_ || op.offset_bytes > size_bytes_ - op.length_bytes) {
    op.error = ENODATA;
    return op.complete(op);
  }
  waiting_.push_back(&take_job(op));
  pump();
}

void NbdDisk::extents(DiskExtents& query) {
  if (!export_.allocation) return Disk::extents(query);
  DiskOp op;
  Job& job = take_job(op);
  job.query = &query;
  query.owner = &job;
  job.as_read = {.kind = DiskOp::Kind::read,
                 .offset_bytes = query.offset_bytes,
                 .length_bytes = std::min(query.length_bytes, kNbdExtentsBytesMax)};
  job.op = &job.as_read;
  waiting_.push_back(&job);
  pump();
}

/// Runs of the server's, of any length, as allocated ranges of whole blocks.
void NbdDisk::answer(DiskExtents& query, const std::vector<NbdRun>& runs) const {
  const std::uint64_t end = query.offset_bytes + std::min(query.length_bytes, kNbdExtentsBytesMax);
  std::uint64_t at = query.offset_bytes;
  query.count = 0;
  for (const NbdRun& run : runs) {
    const std::uint64_t run_end = std::min(end, at + run.length_bytes);
    if (!run.hole && run_end > at) {
      const std::uint64_t from = at - at % block_bytes_;
      const std::uint64_t to =
          std::min(end, (run_end + block_bytes_ - 1) / block_bytes_ * block_bytes_);
      DiskExtent* const last = query.count == 0 ? nullptr : &query.found[query.count - 1];
      if (last != nullptr && from <= last->offset_bytes + last->length_bytes) {
        last->length_bytes =
            std::max(last->offset_bytes + last->length_bytes, to) - last->offset_bytes;
      } else if (query.count == query.found.size()) {
        at = from;  // no room: known up to here
        break;
      } else {
        query.found[query.count++] = {from, to - from};
      }
    }
    at = run_end;
  }
  // A hole in front of a border within a block says nothing about all of the block.
  query.examined_bytes = (at - query.offset_bytes) / block_bytes_ * block_bytes_;
  if (query.count != 0) {
    const DiskExtent& last = query.found[query.count - 1];
    query.examined_bytes =
        std::max(query.examined_bytes, last.offset_bytes + last.length_bytes - query.offset_bytes);
  }
  if (query.examined_bytes != 0) return;
  query.found[0] = {query.offset_bytes, block_bytes_};
  query.count = 1;
  query.examined_bytes = block_bytes_;
}

NbdDisk::Job& NbdDisk::take_job(DiskOp& op) {
  if (free_.empty()) {
    jobs_.push_back(std::make_unique<Job>());
    free_.push_back(jobs_.back().get());
  }
  Job& job = *free_.back();
  free_.pop_back();
  static_cast<NbdRequest&>(job) = {};
  job.op = &op;
  job.query = nullptr;
  job.state = State::waiting;
  job.flushing = false;
  job.abandoned = false;
  job.done_bytes = 0;
  job.losses = 0;
  job.since = loop_.now();
  job.lost_at.reset();
  op.owner = &job;
  return job;
}

/// Sets up the next request of an operation; false if there is nothing left to ask for.
bool NbdDisk::prepare(Job& job) const {
  const DiskOp& op = *job.op;
  job.fua = job.no_hole = job.fast_only = false;
  const std::uint64_t left = op.length_bytes - job.done_bytes;
  if (job.flushing || op.kind == DiskOp::Kind::flush) {
    job.kind = NbdRequest::Kind::flush;
    job.length_bytes = 0;
    return export_.flush && (job.flushing || job.done_bytes == 0);
  }
  if (left == 0) return false;
  job.offset_bytes = op.offset_bytes + job.done_bytes;
  if (job.query != nullptr) {
    job.kind = NbdRequest::Kind::extents;
    job.length_bytes = left;
    return export_.allocation;
  }
  if (op.kind != DiskOp::Kind::read && op.kind != DiskOp::Kind::write) return prepare_zeroes(job);
  job.kind = op.kind == DiskOp::Kind::read ? NbdRequest::Kind::read : NbdRequest::Kind::write;
  job.fua = op.kind == DiskOp::Kind::write && op.fua && export_.fua;
  job.data = op.data + job.done_bytes;
  job.length_bytes =
      std::min(left, export_.payload_bytes_max - export_.payload_bytes_max % block_bytes_);
  return true;
}

/// Deallocated blocks are to read as zero, which NBD's trim does not promise: zeroes that may leave
/// holes do. Deallocating is a hint: where it would be no faster than writing, nothing is done.
bool NbdDisk::prepare_zeroes(Job& job) const {
  const DiskOp& op = *job.op;
  const std::uint64_t left = op.length_bytes - job.done_bytes;
  const bool hint = op.kind == DiskOp::Kind::deallocate;
  if (hint && !(export_.zero && (export_.fast_zero || export_.trim))) return false;
  job.fua = op.fua && export_.fua;
  if (export_.zero) {
    job.kind = NbdRequest::Kind::zero;
    job.no_hole = !hint && !op.deallocate;
    job.fast_only = hint && export_.fast_zero;
    job.length_bytes = std::min(left, kNbdZeroBytesMax);
    return true;
  }
  job.kind = NbdRequest::Kind::write;
  job.data = const_cast<std::byte*>(zeroes_.data());  // is only read; the type is shared with reads
  const std::uint64_t most = std::min<std::uint64_t>(export_.payload_bytes_max, zeroes_.size());
  job.length_bytes = std::min(left, most - most % block_bytes_);
  return true;
}

bool NbdDisk::needs_flush(const Job& job) const {
  return changes(*job.op) && job.op->fua && !job.flushing && !export_.fua && export_.flush &&
         job.done_bytes != 0;
}

NbdLink* NbdDisk::least_busy() const {
  NbdLink* best = nullptr;
  for (const auto& slot : slots_) {
    NbdLink* const link = slot->link.get();
    if (!link->ready() || !link->room()) continue;
    if (best == nullptr || link->in_flight() < best->in_flight()) best = link;
  }
  return best;
}

void NbdDisk::pump() {
  // An operation that ends here may be followed by others inside its completion.
  if (std::exchange(pumping_, true)) return;
  while (!waiting_.empty()) {
    NbdLink* const link = least_busy();
    if (link == nullptr) break;
    Job& job = *waiting_.front();
    waiting_.pop_front();
    if (const int error = verdict(job); error != 0) {
      finish(job, error);
      continue;
    }
    if (!prepare(job)) {
      job.flushing = needs_flush(job);
      if (!job.flushing || !prepare(job)) {
        finish(job, 0);
        continue;
      }
    }
    if (job.kind == NbdRequest::Kind::flush) job.flush_mark = writes_;
    job.state = State::sent;
    link->send(job);
  }
  pumping_ = false;
  arm_tick();
}

int NbdDisk::verdict(const Job& job) const {
  if (job.abandoned) return ECANCELED;
  const Instant now = loop_.now();
  if (down_since_ && now >= *down_since_ + kNbdPatience && now >= job.since + kNbdNotReadyPace) {
    return EAGAIN;
  }
  if (job.losses >= kNbdSendsMax) return EAGAIN;
  const bool silence = job.lost_at && last_answer_ < *job.lost_at;
  return silence && now >= job.since + kNbdPatience ? EAGAIN : 0;
}

void NbdDisk::nbd_completed(NbdRequest& request) {
  Job& job = static_cast<Job&>(request);
  last_answer_ = loop_.now();
  if (request.error == ESHUTDOWN && last_answer_ < job.since + kNbdPatience) {
    // It was not executed, and the connection will end: to the next one.
    job.state = State::held;
    job.safe_at = last_answer_ + kNbdQuiesceClosed;
    held_.push_back(&job);
  } else if (request.error == ENOTSUP && job.fast_only) {
    finish(job, 0);
  } else if (request.error != 0) {
    finish(job, request.error == ESHUTDOWN ? EAGAIN : request.error);
  } else {
    if (job.kind == NbdRequest::Kind::flush) {
      flushed_ = std::max(flushed_, job.flush_mark);
    } else if (changes(*job.op) && !job.fua) {
      ++writes_;
    }
    job.done_bytes += job.length_bytes;
    job.losses = 0;
    const bool more = !job.flushing && job.op->kind != DiskOp::Kind::flush &&
                      (job.done_bytes < job.op->length_bytes || needs_flush(job));
    if (more) {
      job.state = State::waiting;
      waiting_.push_front(&job);
    } else {
      finish(job, 0);
    }
  }
  pump();
}

int NbdDisk::outcome(const Job& job, int error) {
  const DiskOp& op = *job.op;
  const bool promises = op.kind == DiskOp::Kind::flush || (changes(op) && op.fua);
  if (error == 0 && promises && std::exchange(owes_error_, false)) return EIO;
  return error;
}

void NbdDisk::finish(Job& job, int error) {
  DiskOp& op = *job.op;
  op.error = outcome(job, error);
  op.owner = nullptr;
  job.op = nullptr;
  DiskExtents* const query = job.query;
  if (query == nullptr) {
    free_.push_back(&job);
    return op.complete(op);
  }
  query->error = error;
  query->owner = nullptr;
  if (error == 0) answer(*query, job.runs);
  free_.push_back(&job);
  query->complete(*query);
}

void NbdDisk::abandon(DiskOp& op, Abandoned /*why*/) {
  auto* const job = static_cast<Job*>(op.owner);
  if (job == nullptr || job->op != &op) return;
  job->abandoned = true;  // one that is being executed ends as it will
  if (job->state != State::sent) tick_.arm(loop_.now());
}

void NbdDisk::abandon_extents(DiskExtents& query) {
  auto* const job = static_cast<Job*>(query.owner);
  if (job == nullptr || job->query != &query) return;
  job->abandoned = true;
  if (job->state != State::sent) tick_.arm(loop_.now());
}

bool NbdDisk::take_back(DiskOp& op) {
  auto* const job = static_cast<Job*>(op.owner);
  if (job == nullptr || job->op != &op || job->state != State::waiting) return false;
  if (job->lost_at || job->done_bytes != 0) return false;
  std::erase(waiting_, job);
  finish(*job, ECANCELED);
  return true;
}

Result<void> NbdDisk::resize(std::uint64_t size_bytes) {
  if (size_bytes > export_.size_bytes) {
    return fail(fmt::format("The export of the NBD server {} has {} bytes, too few for {}, as far "
                            "as is known since it was last connected to; if it has grown, swap the "
                            "namespace for the same URI",
                            nvme::printable(options_.uri.text), export_.size_bytes, size_bytes),
                ENOSPC);
  }
  size_bytes_ = size_bytes;
  return {};
}

// ---- time

void NbdDisk::tick() {
  const Instant now = loop_.now();
  for (const auto& slot : slots_) {
    if (!slot->link->ready() || !slot->link->overdue(options_.request_timeout)) continue;
    slot->link->drop(
        {fmt::format(
             "it left a request unanswered for {} s",
             std::chrono::duration_cast<std::chrono::seconds>(options_.request_timeout).count()),
         ETIMEDOUT});
  }
  std::erase_if(held_, [&](Job* job) {
    if (now < job->safe_at) return false;
    job->state = State::waiting;
    waiting_.push_back(job);
    return true;
  });
  std::vector<std::pair<Job*, int>> ending;
  std::erase_if(waiting_, [&](Job* job) {
    const int error = verdict(*job);
    if (error == 0) return false;
    job->state = State::sent;  // nobody can take it back any more
    ending.emplace_back(job, error);
    return true;
  });
  for (const auto& [job, error] : ending) finish(*job, error);
  pump();
}

void NbdDisk::arm_tick() {
  if (free_.size() == jobs_.size() || tick_.armed()) return;
  tick_.arm(loop_.now() + kNbdTick);
}

}  // namespace nvmf::controller
