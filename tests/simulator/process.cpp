#include "simulator/process.h"

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "nvme/check.h"
#include "simulator/stamp.h"

namespace nvmf::simulator {

using host::BlockOp;
using host::BlockRequest;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

/// How late a deadline may be kept: what --fast_io_fail_tmo and --ctrl-loss-tmo promise.
constexpr Duration kSlack = milliseconds(1000);

double ms(Duration d) {
  return static_cast<double>(d.count()) / 1e6;
}

const char* name_of(BlockOp op) {
  constexpr const char* kNames[] = {"read", "write", "flush", "write zeroes", "deallocate"};
  return kNames[static_cast<std::size_t>(op)];
}

}  // namespace

/// One request after another of one client.
struct Process::Slot : BlockRequest {
  Process* process = nullptr;
  Client* client = nullptr;
  std::size_t ns = 0;
  std::vector<std::byte> bytes;
  Id id = 0;
  Instant submitted_at{};
  bool busy = false;
  bool submitting = false;
  bool abandoned = false;
  std::unique_ptr<transport::Timer> timer;  // its next request; after abandon(): its order
};

struct Process::Client {
  std::size_t number = 0;
  std::size_t reactor = 0;
  bool left = false;
  bool reader = false;  // reads all, in order
  std::size_t next_block = 0;
  std::size_t next_ns = 0;
  std::vector<std::unique_ptr<Slot>> slots;
};

Process::Process(Common& common, Random random, std::size_t number, host::ConnectParams params)
    : common_(common), random_(random), number_(number), params_(std::move(params)) {
  std::vector<transport::Loop*> loops;
  for (std::size_t r = 0; r < common_.plan.reactors; ++r) {
    loops_.push_back(std::make_unique<ReactorLoop>(common_.loop, *this, random_.fork(),
                                                   common_.plan.post_delay));
    loops.push_back(loops_.back().get());
  }
  subsystem_ = std::make_unique<host::RemoteSubsystem>(params_, loops, *this);
}

Process::~Process() {
  NVMF_CHECK(outstanding_ == 0);
}

// ---- its life

void Process::on_live() {
  if (was_live_) common_.violate("on_live() came twice");
  was_live_ = true;
  live_ = true;
  live_since_ = common_.loop.now();
  learn_facts();
  common_.trace.event('L', number_);
  common_.trace.say("process {} is live", number_);
  if (killed_) return;
  for (const auto& client : clients_) {
    for (const auto& slot : client->slots) think(*slot);
  }
}

void Process::on_lost(const Error& reason) {
  if (!live_) common_.violate("on_lost() came without a live association");
  live_ = false;
  lost_at_ = common_.loop.now();
  common_.trace.event('l', number_);
  common_.trace.say("process {} has lost its association: {}", number_, reason.message);
}

void Process::on_live_again() {
  if (!lost_at_) common_.violate("on_live_again() came without a loss");
  if (params_.loss.fast_io_fail && lost_at_ &&
      common_.loop.now() - *lost_at_ >= *params_.loss.fast_io_fail) {
    io_has_failed_ = true;
  }
  live_ = true;
  lost_at_.reset();
  live_since_ = common_.loop.now();
  learn_facts();
  common_.trace.event('L', number_);
  common_.trace.say("process {} is live again", number_);
}

void Process::on_ended(const Error& reason) {
  if (ended_) common_.violate("on_ended() came twice");
  live_ = false;
  lost_at_.reset();
  ended_ = reason;
  ended_at_ = common_.loop.now();
  common_.trace.event('E', number_, static_cast<std::uint64_t>(reason.code));
  common_.trace.say("process {} has ended: {}", number_, reason.message);
}

void Process::learn_facts() {
  const host::AssociationInfo* const info = subsystem_->info();
  if (info == nullptr) return;
  facts_ = host::SilenceFacts{.katt_ms = info->katt_ms,
                              .traffic_based = info->traffic_based_keep_alive,
                              .cqt_ms = info->controller.cqt};
}

void Process::stop(bool force) {
  if (ended_ || stopping_) return;
  common_.trace.say("process {} is asked to stop{}", number_, force ? " at once" : "");
  stopping_ = true;
  stop_asked_at_ = common_.loop.now();
  pause();
  subsystem_->stop(force);
}

void Process::kill() {
  common_.trace.event('K', number_);
  common_.trace.say("process {} is killed", number_);
  killed_ = true;
  pause();
  for (const auto& client : clients_) {
    for (const auto& slot : client->slots) {
      if (slot->busy) common_.checker.orphaned(slot->id);
    }
  }
  for (const auto& link : common_.loop.links()) {
    if (!owns(link->client())) continue;
    link->die(sim::Side::client, random_.percent(60) ? sim::Farewell::fin : sim::Farewell::rst);
  }
  stopping_ = true;
  stop_asked_at_ = common_.loop.now();
  if (!ended_) subsystem_->stop(true);
}

void Process::set_policy(const host::LossPolicy& policy) {
  const auto done = subsystem_->set_policy(policy);
  if (!done) return common_.violate("set_policy() failed: " + done.error().message);
  params_.loss = policy;
  common_.trace.say("process {} has another policy", number_);
}

// ---- clients

std::size_t Process::clients() const {
  return static_cast<std::size_t>(
      std::ranges::count_if(clients_, [](const auto& c) { return !c->left; }));
}

void Process::add_client() {
  auto client = std::make_unique<Client>();
  client->number = next_client_++;
  client->reactor = random_.below(loops_.size());
  const std::size_t depth = random_.between(1, common_.plan.depth);
  for (std::size_t i = 0; i < depth; ++i) {
    auto slot = std::make_unique<Slot>();
    slot->process = this;
    slot->client = client.get();
    slot->complete = &Process::completed;
    Slot* const s = slot.get();
    slot->timer =
        std::make_unique<transport::Timer>(common_.loop.timers(), [this, s] { next_request(*s); });
    client->slots.push_back(std::move(slot));
  }
  clients_.push_back(std::move(client));
  if (!was_live_) return;
  for (const auto& slot : clients_.back()->slots) think(*slot);
}

void Process::remove_client() {
  std::vector<Client*> there;
  for (const auto& client : clients_) {
    if (!client->left) there.push_back(client.get());
  }
  if (there.empty() || !was_live_) return;
  Client& client = *there[random_.below(there.size())];
  client.left = true;
  common_.trace.say("client {} of process {} goes away", client.number, number_);
  for (const auto& slot : client.slots) {
    slot->timer->cancel();
    if (!slot->busy) continue;
    slot->abandoned = true;
    // Other reactors hear of it within a post or two; from then on its order is fixed.
    const Id id = slot->id;
    slot->timer = std::make_unique<transport::Timer>(common_.loop.timers(),
                                                     [this, id] { common_.checker.orphaned(id); });
    slot->timer->arm(common_.loop.now() + 3 * common_.plan.post_delay);
    device(client.reactor, slot->ns)->abandon(*slot);
  }
}

void Process::resume() {
  paused_ = false;
  if (!was_live_) return;
  for (const auto& client : clients_) {
    if (client->left) continue;
    for (const auto& slot : client->slots) {
      if (!slot->busy && !slot->timer->armed()) think(*slot);
    }
  }
}

void Process::read_all() {
  auto client = std::make_unique<Client>();
  client->number = next_client_++;
  client->reader = true;
  client->reactor = random_.below(loops_.size());
  auto slot = std::make_unique<Slot>();
  slot->process = this;
  slot->client = client.get();
  slot->complete = &Process::completed;
  Slot* const s = slot.get();
  slot->timer =
      std::make_unique<transport::Timer>(common_.loop.timers(), [this, s] { next_request(*s); });
  client->slots.push_back(std::move(slot));
  clients_.push_back(std::move(client));
  next_request(*s);
}

host::BlockDevice* Process::device(std::size_t reactor, std::size_t ns) {
  // Fewer reactors than loops have devices when fewer queues were granted.
  const std::size_t r = reactor % std::max<std::size_t>(subsystem_->reactors(), 1);
  return subsystem_->device(r, static_cast<std::uint32_t>(ns + 1));
}

void Process::think(Slot& slot) {
  slot.timer->arm(common_.loop.now() + random_.between(Duration{}, common_.plan.think));
}

void Process::next_request(Slot& slot) {
  if (slot.client->left || slot.busy || killed_) return;
  Client& client = *slot.client;
  if (client.reader) {
    if (client.next_block >= common_.plan.blocks) {
      client.next_block = 0;
      ++client.next_ns;
    }
    if (client.next_ns >= common_.plan.namespaces) {
      client.left = true;
      return;
    }
    const std::size_t n = std::min<std::size_t>(16, common_.plan.blocks - client.next_block);
    slot.op = BlockOp::read;
    slot.ns = client.next_ns;
    slot.offset_bytes = client.next_block * common_.plan.block_bytes;
    slot.length_bytes = n * common_.plan.block_bytes;
    client.next_block += n;
  } else {
    if (paused_ || common_.requests_left == 0) return;
    --common_.requests_left;
    draw(slot);
  }
  submit(slot);
}

/// Mostly a few blocks of a small hot region, so that requests overlap.
void Process::draw(Slot& slot) {
  const Plan& plan = common_.plan;
  const std::uint64_t granules_per_block = plan.block_bytes / common_.granule_bytes;
  const std::uint64_t all = plan.blocks * granules_per_block;
  slot.ns = random_.below(plan.namespaces);
  slot.fua = random_.percent(plan.fua_percent);
  slot.no_hole = random_.percent(50);
  slot.fast_only = false;
  slot.offset_bytes = 0;
  slot.length_bytes = 0;
  if (random_.percent(plan.flush_percent)) {
    slot.op = BlockOp::flush;
    slot.fua = false;
    return;
  }
  const bool unaligned = random_.percent(plan.unaligned_percent);
  const std::uint64_t unit = unaligned ? 1 : granules_per_block;
  const std::uint64_t region =
      random_.percent(85) ? std::min<std::uint64_t>(plan.hot_blocks * granules_per_block, all)
                          : all;
  const std::uint64_t begin = random_.below(region) / unit * unit;
  const std::uint64_t most = random_.percent(80) ? 2 * granules_per_block : 12 * granules_per_block;
  std::uint64_t length = (random_.below(most) / unit + 1) * unit;
  length = std::min(length, all - begin);
  slot.offset_bytes = begin * common_.granule_bytes;
  slot.length_bytes = length * common_.granule_bytes;
  if (random_.percent(plan.read_percent)) {
    slot.op = BlockOp::read;
    slot.fua = false;
  } else {
    const std::uint64_t kind = random_.below(100);
    slot.op = kind < 85 ? BlockOp::write : kind < 94 ? BlockOp::write_zeroes : BlockOp::deallocate;
  }
}

void Process::submit(Slot& slot) {
  const Plan& plan = common_.plan;
  Checker::What what = Checker::What::zeroes;
  std::size_t begin = slot.offset_bytes / common_.granule_bytes;
  std::size_t end = begin + slot.length_bytes / common_.granule_bytes;
  if (slot.op == BlockOp::read) what = Checker::What::read;
  if (slot.op == BlockOp::write) what = Checker::What::write;
  if (slot.op == BlockOp::flush) what = Checker::What::flush;
  if (slot.op == BlockOp::deallocate) {  // rounded inward
    const std::size_t per_block = plan.block_bytes / common_.granule_bytes;
    begin = (begin + per_block - 1) / per_block * per_block;
    end = std::max(begin, end / per_block * per_block);
  }
  slot.id = common_.checker.submitted(what, slot.ns, begin, end, slot.fua);
  slot.bytes.resize(slot.length_bytes);
  slot.data = slot.bytes.data();
  if (slot.op == BlockOp::write) {
    for (std::size_t g = begin; g < end; ++g) {
      put_stamp(
          std::span(slot.bytes).subspan((g - begin) * common_.granule_bytes, common_.granule_bytes),
          slot.id, g, static_cast<std::uint32_t>(slot.ns));
    }
  } else if (slot.op == BlockOp::read) {
    std::ranges::fill(slot.bytes, std::byte{0xee});  // not zero: what was not filled in shows
  }
  slot.busy = true;
  slot.submitted_at = common_.loop.now();
  ++outstanding_;
  common_.trace.event('s', slot.id, slot.offset_bytes << 32 | slot.length_bytes);
  common_.trace.say("process {} client {}: #{} {}{} of granules {} to {} on disk {}", number_,
                    slot.client->number, slot.id, name_of(slot.op), slot.fua ? " with FUA" : "",
                    begin, end, slot.ns);
  slot.submitting = true;
  device(slot.client->reactor, slot.ns)->submit(slot);
  slot.submitting = false;
}

void Process::completed(BlockRequest& request) {
  Slot& slot = static_cast<Slot&>(request);
  slot.process->finish(slot);
}

bool Process::error_allowed(const Slot& slot) const {
  switch (slot.error) {
    case ECANCELED:
      return slot.abandoned;
    case ESHUTDOWN:
      return stopping_ || ended_.has_value() || params_.loss.ctrl_loss.has_value();
    case EIO: {
      // Since the loss, or for a fence or another try: waiting has the same limit.
      const Instant since = lost_at_ ? std::min(*lost_at_, slot.submitted_at) : slot.submitted_at;
      const bool late =
          params_.loss.fast_io_fail && common_.loop.now() - since >= *params_.loss.fast_io_fail;
      return late || io_has_failed_ || stopping_ || ended_.has_value() || common_.errors_excused ||
             params_.loss.ctrl_loss.has_value() || params_.unflushed == host::Unflushed::fail;
    }
    default:
      return false;
  }
}

void Process::finish(Slot& slot) {
  if (slot.submitting) {
    common_.violate(fmt::format("request #{} was completed inside submit()", slot.id));
  }
  if (!slot.busy) {
    return common_.violate(fmt::format("request #{} was completed twice", slot.id));
  }
  slot.busy = false;
  --outstanding_;
  if (killed_) return;  // nobody is there to hear it
  common_.trace.event('c', slot.id, static_cast<std::uint64_t>(slot.error));
  common_.trace.say("process {} client {}: #{} {} ends with {}", number_, slot.client->number,
                    slot.id, name_of(slot.op), slot.error);
  if (slot.error != 0) {
    ++failed_;
    if (!error_allowed(slot)) {
      common_.violate(
          fmt::format("request #{} ended with error {} for no reason", slot.id, slot.error));
    }
  }
  if (slot.op == BlockOp::read && slot.error == 0) {
    finish_read(slot);
  } else {
    common_.checker.ended(slot.id, slot.error == 0);
  }
  if (slot.client->left) return;
  if (slot.client->reader || random_.percent(10)) return next_request(slot);
  think(slot);
}

void Process::finish_read(Slot& slot) {
  std::vector<Id> values;
  const std::size_t first = slot.offset_bytes / common_.granule_bytes;
  const std::size_t n = slot.length_bytes / common_.granule_bytes;
  values.reserve(n);
  for (std::size_t i = 0; i < n; ++i) {
    const auto place =
        std::span(slot.bytes).subspan(i * common_.granule_bytes, common_.granule_bytes);
    const auto value = read_stamp(place, first + i, static_cast<std::uint32_t>(slot.ns));
    if (!value) {
      return common_.violate_data(fmt::format(
          "read #{}: granule {} of disk {} holds what no request can have written there", slot.id,
          first + i, slot.ns));
    }
    values.push_back(*value);
  }
  common_.checker.ended_with(slot.id, values);
}

// ---- deadlines

void Process::check_deadlines() {
  const Instant now = common_.loop.now();
  if (stopping_ && !ended_ && now > stop_asked_at_ + host::kStopTimeMax + kSlack) {
    return common_.violate(fmt::format("process {} has not ended {} ms after stop()", number_,
                                       ms(now - stop_asked_at_)));
  }
  if (lost_at_ && params_.loss.ctrl_loss &&
      now > *lost_at_ + *params_.loss.ctrl_loss + host::kStopTimeMax + kSlack) {
    return common_.violate(fmt::format("process {} has not given up {} ms after the loss", number_,
                                       ms(now - *lost_at_)));
  }
  for (const auto& client : clients_) {
    for (const auto& slot : client->slots) {
      if (!slot->busy) continue;
      std::optional<Instant> due;
      if (ended_) due = std::max(ended_at_, slot->submitted_at);
      if (lost_at_ && params_.loss.fast_io_fail) {
        due = std::max(*lost_at_ + *params_.loss.fast_io_fail, slot->submitted_at);
      }
      if (!due || now <= *due + kSlack) continue;
      return common_.violate(fmt::format("request #{} is still waiting {} ms after its deadline",
                                         slot->id, ms(now - *due)));
    }
  }
}

}  // namespace nvmf::simulator
