#include "host/fake_target.h"

#include <algorithm>
#include <cstring>

namespace nvmf::test {

using nvme::StatusCode;

FakeTarget::FakeTarget(sim::VirtualLoop& loop, std::string host, std::uint16_t port) : loop_(loop) {
  cap.mqes = 1023;
  cap.cqr = true;
  cap.to = 10;
  cap.css = nvme::kCapCssNvm;
  id.sn = "FAKE";
  id.mn = "fake target";
  id.cntrltype = nvme::ControllerType::io;
  id.kas = 1;
  id.aerl = 3;
  id.oaes = nvme::kOaesNamespaceAttributes;
  id.sqes = 0x66;
  id.cqes = 0x44;
  id.maxcmd = 1024;
  id.oncs = nvme::kOncsWriteZeroes | nvme::kOncsDsm;
  id.vwc = nvme::kVwcPresent;
  id.sgls = nvme::kSglsSupported | nvme::kSglsOffset | nvme::kSglsTransportDataBlock;
  id.subnqn = kSubnqn;
  id.ioccsz = 4 + 512;
  id.iorcsz = 1;
  transport::Endpoint at;
  at.host = std::move(host);
  at.port = port;
  auto listener = loop.listen(at, [this](std::unique_ptr<transport::Incoming> incoming) {
    ++accepted;
    connections_.push_back(std::make_unique<Connection>(*this, std::move(incoming)));
  });
  listener_ = std::move(*listener);
}

FakeTarget::~FakeTarget() {
  for (auto& c : connections_) {
    if (!c->ended) c->qpair.end(Error{"the test is over", 0});
  }
  loop_.run_until_idle();
}

FakeNamespace& FakeTarget::add_namespace(std::uint32_t nsid, std::uint64_t blocks,
                                         std::uint8_t lbads) {
  FakeNamespace& ns = namespaces[nsid];
  ns.id.nsze = ns.id.ncap = ns.id.nuse = blocks;
  ns.id.lbaf[0].lbads = lbads;
  nvme::Uuid uuid{};
  uuid[0] = std::byte{0x11};
  uuid[15] = static_cast<std::byte>(nsid);
  ns.descriptors.uuid = uuid;
  if (blocks << lbads <= 64u << 20) ns.bytes.resize(blocks << lbads);
  return ns;
}

std::size_t FakeTarget::open_connections() const {
  return static_cast<std::size_t>(
      std::ranges::count_if(connections_, [](const auto& c) { return !c->ended; }));
}

std::size_t FakeTarget::count(std::uint16_t qid, std::uint8_t opcode) const {
  return static_cast<std::size_t>(std::ranges::count_if(
      seen, [&](const SeenCommand& s) { return s.qid == qid && s.sqe.opcode == opcode; }));
}

std::vector<SeenCommand> FakeTarget::io_commands(nvme::NvmOpcode opcode) const {
  std::vector<SeenCommand> out;
  for (const SeenCommand& s : seen) {
    if (s.qid != 0 && s.sqe.opcode == static_cast<std::uint8_t>(opcode)) out.push_back(s);
  }
  return out;
}

FakeTarget::Connection* FakeTarget::connection(std::uint16_t qid) {
  for (auto& c : connections_) {
    if (!c->ended && c->qid == qid) return c.get();
  }
  return nullptr;
}

bool FakeTarget::send_event(nvme::AsyncEvent event) {
  Connection* admin = connection(0);
  if (admin == nullptr || admin->event_requests.empty()) return false;
  auto* command = admin->event_requests.back();
  admin->event_requests.pop_back();
  admin->respond(*command, {}, event.encode());
  return true;
}

FakeTarget::Connection::Connection(FakeTarget& t, std::unique_ptr<transport::Incoming> incoming)
    : target(t), qpair(t.qpair, *this) {
  qpair.start(t.loop_, std::move(incoming));
}

void FakeTarget::Connection::on_ended(const Error&) {
  ended = true;
}

void FakeTarget::Connection::respond(transport::ControllerCommand& c, nvme::Status status,
                                     std::uint64_t result) {
  qpair.respond(c, status, result);
}

void FakeTarget::Connection::send(transport::ControllerCommand& c, std::vector<std::byte> data) {
  data.resize(c.data_bytes);
  Transfer& t = transfers_[&c];
  t.bytes = std::move(data);
  if (t.bytes.empty()) return respond(c, {});
  qpair.send_data(c, t.bytes, true, false);
}

void FakeTarget::Connection::on_data_sent(transport::ControllerCommand& c) {
  transfers_.erase(&c);
  respond(c, {});
}

void FakeTarget::Connection::on_data_received(transport::ControllerCommand& c, bool) {
  execute(c);
}

void FakeTarget::Connection::on_command(transport::ControllerCommand& c) {
  const bool writes = (c.sqe.opcode & 3) == 1 || c.sqe.is_fabrics();
  if (writes && c.data_bytes != 0 && c.in_capsule.empty()) {
    Transfer& t = transfers_[&c];
    t.bytes.resize(c.data_bytes);
    return qpair.receive_data(c, t.bytes);
  }
  execute(c);
}

void FakeTarget::Connection::execute(transport::ControllerCommand& c) {
  SeenCommand s;
  s.qid = qid;
  s.sqe = c.sqe;
  s.at = target.loop_.now();
  if (!c.in_capsule.empty()) s.data.assign(c.in_capsule.begin(), c.in_capsule.end());
  if (const auto t = transfers_.find(&c); t != transfers_.end()) {
    s.data = std::move(t->second.bytes);
    transfers_.erase(t);
  }
  if (c.sqe.is_fabrics() && c.sqe.fabrics_type() == nvme::FabricsType::connect) {
    qid = nvme::ConnectCommand::from_sqe(c.sqe).qid;
    s.qid = qid;
  }
  target.seen.push_back(std::move(s));
  if (target.intercept && target.intercept(*this, c)) return;
  if (c.sqe.is_fabrics()) return fabrics(c);
  return qid == 0 ? admin(c) : io(c);
}

void FakeTarget::Connection::connect(transport::ControllerCommand& c) {
  const auto command = nvme::ConnectCommand::from_sqe(c.sqe);
  if (qid == 0) target.kato_ms_ = command.kato_ms;
  const bool off =
      target.flow_control_off && (command.cattr & nvme::kCattrDisableSqFlowControl) != 0;
  qpair.open_queue(command.queue_entries, qid == 0 ? 8192 : 8192, !off);
  respond(c, {}, nvme::ConnectResponse{.cntlid = target.cntlid}.encode());
}

void FakeTarget::Connection::fabrics(transport::ControllerCommand& c) {
  if (c.sqe.fabrics_type() == nvme::FabricsType::connect) return connect(c);
  const auto p = nvme::PropertyCommand::from_sqe(c.sqe);
  if (!p) return respond(c, StatusCode::invalid_field);
  if (c.sqe.fabrics_type() == nvme::FabricsType::property_set) {
    if (p->offset == static_cast<std::uint32_t>(nvme::Property::cc)) {
      target.cc_ = static_cast<std::uint32_t>(p->value);
      target.enabled_at_ = target.loop_.now();
    }
    return respond(c, {});
  }
  const auto cc = nvme::ControllerConfiguration::decode(target.cc_);
  switch (static_cast<nvme::Property>(p->offset)) {
    case nvme::Property::cap:
      return respond(c, {}, target.cap.encode());
    case nvme::Property::vs:
      return respond(c, {}, nvme::kVersion14);
    case nvme::Property::cc:
      return respond(c, {}, target.cc_);
    case nvme::Property::csts: {
      nvme::ControllerStatus csts;
      csts.rdy = cc.en && target.becomes_ready &&
                 target.loop_.now() - target.enabled_at_ >= target.ready_delay;
      if (cc.shn != 0 && target.shuts_down) csts.shst = nvme::kShstComplete;
      return respond(c, {}, csts.encode());
    }
    default:
      return respond(c, StatusCode::invalid_field);
  }
}

void FakeTarget::Connection::identify(transport::ControllerCommand& c) {
  const auto command = nvme::IdentifyCommand::from_sqe(c.sqe);
  std::vector<std::byte> page(nvme::kIdentifyBytes);
  const auto out = std::span(page).first<nvme::kIdentifyBytes>();
  const auto ns = target.namespaces.find(command.nsid);
  switch (command.cns) {
    case nvme::Cns::controller:
      if (target.id.cntlid == 0) target.id.cntlid = target.cntlid;
      target.id.encode(out);
      break;
    case nvme::Cns::active_namespaces: {
      std::vector<std::uint32_t> nsids;
      for (const auto& [nsid, unused] : target.namespaces) {
        if (nsid > command.nsid && nsids.size() < nvme::kNamespaceListEntries) {
          nsids.push_back(nsid);
        }
      }
      nvme::encode_namespace_list(nsids, out);
      break;
    }
    case nvme::Cns::identify_namespace:
      if (ns == target.namespaces.end()) return respond(c, StatusCode::invalid_namespace);
      ns->second.id.encode(out);
      break;
    case nvme::Cns::namespace_descriptors:
      if (ns == target.namespaces.end()) return respond(c, StatusCode::invalid_namespace);
      ns->second.descriptors.encode(out);
      break;
    case nvme::Cns::csi_controller:
      if (!target.nvm) return respond(c, StatusCode::invalid_field);
      target.nvm->encode(out);
      break;
    default:
      return respond(c, StatusCode::invalid_field);
  }
  send(c, std::move(page));
}

void FakeTarget::Connection::admin(transport::ControllerCommand& c) {
  const auto feature = nvme::FeatureCommand::from_sqe(c.sqe);
  switch (static_cast<nvme::AdminOpcode>(c.sqe.opcode)) {
    case nvme::AdminOpcode::identify:
      return identify(c);
    case nvme::AdminOpcode::keep_alive:
      return respond(c, {});
    case nvme::AdminOpcode::async_event_request:
      event_requests.push_back(&c);
      return;
    case nvme::AdminOpcode::get_log_page:
      return send(c, std::vector<std::byte>(c.data_bytes));
    case nvme::AdminOpcode::set_features:
      if (feature.feature == nvme::Feature::number_of_queues) {
        const auto asked = nvme::QueueCount::decode(feature.cdw11);
        const std::uint32_t n = std::min(asked.submission, target.queues_granted);
        return respond(c, {}, nvme::QueueCount{n, n}.encode());
      }
      return respond(c, {});
    case nvme::AdminOpcode::get_features:
      if (feature.feature == nvme::Feature::keep_alive_timer) {
        return respond(c, {},
                       target.kato_reported_ms != 0 ? target.kato_reported_ms : target.kato_ms_);
      }
      return respond(c, StatusCode::invalid_field);
    default:
      return respond(c, StatusCode::invalid_opcode);
  }
}

void FakeTarget::Connection::io(transport::ControllerCommand& c) {
  const auto found = target.namespaces.find(c.sqe.nsid);
  if (found == target.namespaces.end()) return respond(c, StatusCode::invalid_namespace);
  FakeNamespace& ns = found->second;
  const unsigned shift = ns.id.format().lbads;
  const std::uint64_t offset = c.sqe.slba() << shift;
  const std::uint64_t bytes = std::uint64_t{c.sqe.blocks()} << shift;
  const auto opcode = static_cast<nvme::NvmOpcode>(c.sqe.opcode);
  const bool ranged = opcode == nvme::NvmOpcode::read || opcode == nvme::NvmOpcode::write ||
                      opcode == nvme::NvmOpcode::write_zeroes;
  if (ranged && offset + bytes > ns.id.nsze << shift) {
    return respond(c, StatusCode::lba_out_of_range);
  }
  switch (opcode) {
    case nvme::NvmOpcode::read: {
      std::vector<std::byte> data(bytes);
      if (!ns.bytes.empty()) std::memcpy(data.data(), ns.bytes.data() + offset, bytes);
      return send(c, std::move(data));
    }
    case nvme::NvmOpcode::write:
      if (!ns.bytes.empty()) {
        std::memcpy(ns.bytes.data() + offset, target.seen.back().data.data(), bytes);
      }
      return respond(c, {});
    case nvme::NvmOpcode::write_zeroes:
      if (!ns.bytes.empty()) std::memset(ns.bytes.data() + offset, 0, bytes);
      return respond(c, {});
    case nvme::NvmOpcode::dataset_management:
      for (const nvme::DsmRange& r : nvme::decode_dsm_ranges(target.seen.back().data)) {
        if (!ns.bytes.empty()) {
          std::memset(ns.bytes.data() + (r.lba << shift), 0, std::size_t{r.blocks} << shift);
        }
      }
      return respond(c, {});
    default:
      return respond(c, {});
  }
}

}  // namespace nvmf::test
