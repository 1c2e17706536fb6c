// What a target tells about itself when it is asked what is wrong with it.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "controller/controller.h"
#include "controller/faults.h"
#include "controller/session.h"
#include "controller/target.h"

namespace nvmf::controller {

using nlohmann::json;

namespace {

std::int64_t milliseconds(Duration d) {
  return std::chrono::ceil<std::chrono::milliseconds>(d).count();
}

json scope_json(const char* fault, const FaultScope& scope) {
  json out{{"fault", fault}};
  if (!scope.subnqn.empty()) out["subsystem"] = scope.subnqn;
  if (scope.nsid != 0) out["nsid"] = scope.nsid;
  if (scope.cntlid != 0) out["controller"] = scope.cntlid;
  if (scope.qid) out["queue"] = *scope.qid;
  return out;
}

json status_json(const nvme::Status& status, nvme::StatusContext context) {
  return nvme::describe(status, context);
}

json connection_json(const Session& session) {
  json out{{"peer", session.qpair().peer()}};
  if (session.in_hole()) out["blackhole"] = true;
  if (session.controller() == nullptr) return out;
  out["subsystem"] = session.controller()->subsystem().nqn();
  out["controller"] = session.controller()->cntlid();
  out["queue"] = session.qid();
  return out;
}

json controller_json(const Controller& controller) {
  return {{"subsystem", controller.subsystem().nqn()},
          {"controller", controller.cntlid()},
          {"hostnqn", controller.identity().hostnqn},
          {"ready", controller.ready()},
          {"fatal", controller.fatal()},
          {"kato_ms", controller.features().keep_alive_ms},
          {"io_queues", controller.io_queue_count()}};
}

json subsystem_json(const Subsystem& subsystem) {
  json namespaces = json::array();
  for (const auto& ns : subsystem.namespaces()) {
    namespaces.push_back({{"nsid", ns->nsid},
                          {"bytes", ns->disk->size_bytes()},
                          {"block", ns->block_bytes},
                          {"uuid", nvme::format_uuid(ns->uuid)},
                          {"volatile_cache", ns->disk->volatile_cache()}});
  }
  json ana = json::array();
  for (const AnaGroup& group : subsystem.ana_groups()) {
    json one{{"group", ana.size() + 1}, {"state", nvme::ana_state_name(group.state)}};
    for (const auto& [port, state] : group.by_port) {
      one["ports"].push_back({{"port", port}, {"state", nvme::ana_state_name(state)}});
    }
    ana.push_back(std::move(one));
  }
  const Counters& c = subsystem.counters;
  return {{"subsystem", subsystem.nqn()},
          {"hosts", subsystem.allows_any() ? json(nullptr) : json(subsystem.hosts())},
          {"namespaces", std::move(namespaces)},
          {"ana", std::move(ana)},
          {"health",
           {{"critical_warning", subsystem.health.critical_warning},
            {"temperature", subsystem.health.temperature_kelvins},
            {"spare", subsystem.health.spare_percent},
            {"used", subsystem.health.used_percent}}},
          {"counters",
           {{"reads", c.read_commands},
            {"writes", c.write_commands},
            {"read_bytes", c.read_bytes},
            {"written_bytes", c.written_bytes},
            {"media_errors", c.media_errors},
            {"errors", c.error_entries},
            {"unsafe_shutdowns", c.unsafe_shutdowns}}}};
}

json counters_json(const FaultCounters& c) {
  return {{"dropped", c.dropped},     {"refused", c.refused},         {"delayed", c.delayed},
          {"held", c.held},           {"ghosts", c.ghosts},           {"failed", c.failed},
          {"corrupted", c.corrupted}, {"keep_alives", c.keep_alives}, {"cancelled", c.cancelled}};
}

}  // namespace

json Faults::standing() const {
  const Instant now = target_.loop().now();
  json faults = json::array();
  for (const Refusal& refusal : refusals_) {
    json one = scope_json("refuse", refusal.fault.scope);
    if (refusal.fault.status) {
      one["status"] = status_json(*refusal.fault.status, nvme::StatusContext::fabrics);
    }
    if (refusal.fault.count) one["count"] = *refusal.fault.count;
    if (refusal.until) one["left_ms"] = milliseconds(std::max(Duration{}, *refusal.until - now));
    faults.push_back(std::move(one));
  }
  for (const auto& hole : holes_) {
    json one = scope_json("blackhole", hole->scope);
    if (hole->timer.armed()) one["left_ms"] = milliseconds(hole->timer.deadline() - now);
    faults.push_back(std::move(one));
  }
  for (const DelayFault& fault : delays_) {
    json one = scope_json("delay", fault.scope);
    one["before_ms"] = milliseconds(fault.before);
    one["after_ms"] = milliseconds(fault.after);
    if (fault.opcode) one["opcode"] = *fault.opcode;
    if (fault.count) one["count"] = *fault.count;
    faults.push_back(std::move(one));
  }
  for (const LateFault& fault : lates_) {
    json one = scope_json("late", fault.scope);
    one["after_ms"] = milliseconds(fault.after);
    one["hold"] = fault.hold;
    one["even_if_stopped"] = fault.even_if_stopped;
    faults.push_back(std::move(one));
  }
  for (const FailFault& fault : fails_) {
    json one = scope_json("fail", fault.scope);
    one["status"] = status_json(fault.status, nvme::StatusContext::nvm);
    if (fault.opcode) one["opcode"] = *fault.opcode;
    if (fault.first_lba) one["lba"] = {*fault.first_lba, fault.last_lba};
    if (fault.count) one["count"] = *fault.count;
    faults.push_back(std::move(one));
  }
  for (const CorruptFault& fault : corrupts_) {
    json one = scope_json("corrupt", fault.scope);
    one["count"] = fault.count;
    faults.push_back(std::move(one));
  }
  for (const KeepAliveFault& fault : keep_alives_) {
    faults.push_back(scope_json("keep-alive", fault.scope));
  }
  return faults;
}

json Faults::show() const {
  json connections = json::array();
  for (const Session* session : target_.sessions())
    connections.push_back(connection_json(*session));
  json controllers = json::array();
  for (const Controller* controller : target_.controllers()) {
    controllers.push_back(controller_json(*controller));
  }
  json subsystems = json::array();
  for (const auto& subsystem : target_.subsystems()) {
    subsystems.push_back(subsystem_json(*subsystem));
  }
  json referrals = json::array();
  for (const nvme::HostPort& at : target_.discovery().referrals()) {
    referrals.push_back("tcp://" + at.to_string());
  }
  return {{"faults", standing()},
          {"referrals", std::move(referrals)},
          {"generation", target_.discovery().generation()},
          {"counters", counters_json(counters_)},
          {"ghosts", ghosts()},
          {"listening", !target_.down()},
          {"connections", std::move(connections)},
          {"controllers", std::move(controllers)},
          {"subsystems", std::move(subsystems)}};
}

}  // namespace nvmf::controller
