// The verbs of nvmf that show Identify data.
#include "nvmf_identify.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "nvme/admin.h"
#include "nvme/identify.h"
#include "nvme/identify_lists.h"
#include "nvme/json.h"
#include "nvme/json_identify.h"
#include "nvme/print.h"
#include "nvme/print_identify.h"
#include "nvmf_output.h"
#include "tool_port.h"

namespace nvmf::tools {

namespace {

using nvme::Cns;
using Bytes = std::vector<std::byte>;

/// CNS 1Ah, CDW11 with a command set: as allocated_namespaces, of that set. Base 2.1 §5.1.13.2.19.
constexpr auto kCsiAllocatedNamespaces = static_cast<Cns>(0x1a);
/// Any controller of the subsystem: this one. Base 2.1 §5.1.13.2.20.
constexpr std::uint16_t kThisController = 0xffff;
/// nvme-cli 2.3 begins its list of domains here unless told otherwise.
constexpr std::uint16_t kDomainsDefault = 0xffff;

Result<Bytes> identify(CommandPort& port, const nvme::IdentifyCommand& command) {
  Bytes data(nvme::kIdentifyBytes);
  const auto sqe = command.to_sqe();
  const auto reply = read_admin(port, sqe, data);
  if (auto ok = judge(port, sqe, true, reply); !ok) return std::unexpected(ok.error());
  return data;
}

/// Asks for one page and shows it: as it is, or by one of the two functions of a decoded value.
template <class Decode, class Json, class Text>
int show_page(CommandPort& port, const IdentifyWords& words, const nvme::IdentifyCommand& command,
              Decode decode, Json json, Text text) {
  const auto data = identify(port, command);
  if (!data) return refuse(data.error());
  if (words.format == OutputFormat::binary) return write_raw(*data);
  const auto value = decode(*data);
  return show(words.format == OutputFormat::json ? json(value) : text(value));
}

/// The same, of the controller that the words name.
template <class Decode, class Json, class Text>
int show_page(const IdentifyWords& words, const nvme::IdentifyCommand& command, Decode decode,
              Json json, Text text) {
  auto port = CommandPort::open(words.target, words.temporary, PortUse::admin);
  if (!port) return refuse(port.error());
  return show_page(**port, words, command, decode, json, text);
}

/// What most structures have: to_json(value), print(value).
constexpr auto kToJson = [](const auto& value) { return nvme::to_json(value); };
constexpr auto kToText = [](const auto& value) { return nvme::print(value); };

/// Of a namespace: the function is given the port and the NSID.
template <class Run>
int with_namespace(const IdentifyWords& words, Run run) {
  auto port = CommandPort::open(words.target, words.temporary, PortUse::admin);
  if (!port) return refuse(port.error());
  const auto nsid = wanted_nsid(**port, words.nsid);
  if (!nsid) return refuse(nsid.error());
  return run(**port, *nsid);
}

}  // namespace

int id_ctrl(const IdentifyWords& words) {
  return show_page(words, {.cns = Cns::controller}, nvme::IdentifyController::decode, kToJson,
                   [&](const nvme::IdentifyController& id) {
                     return nvme::print(id, words.detail) +
                            (words.vendor_specific ? nvme::print_vendor_specific(id) : "");
                   });
}

int id_ns(const IdentifyWords& words) {
  return with_namespace(words, [&](CommandPort& port, std::uint32_t nsid) {
    const Cns cns = words.allocated ? Cns::allocated_namespace : Cns::identify_namespace;
    return show_page(port, words, {.cns = cns, .nsid = nsid}, nvme::IdentifyNamespace::decode,
                     kToJson, [&](const nvme::IdentifyNamespace& id) {
                       return nvme::print(id, nsid, words.detail) +
                              (words.vendor_specific ? nvme::print_vendor_specific(id) : "");
                     });
  });
}

/// One page, as in nvme-cli: those that follow are asked for with -n.
int list_ns(const IdentifyWords& words) {
  const std::uint32_t first = words.nsid.value_or(1);
  if (first == 0) {
    return refuse({"no namespace has the number 0: begin with --namespace-id 1", EINVAL});
  }
  nvme::IdentifyCommand command = {.nsid = first - 1, .csi = nvme::Csi::nvm};
  if (words.csi) {
    command.cns = words.allocated ? kCsiAllocatedNamespaces : Cns::csi_active_namespaces;
    command.csi = static_cast<nvme::Csi>(*words.csi);
  } else {
    command.cns = words.allocated ? Cns::allocated_namespaces : Cns::active_namespaces;
  }
  auto port = CommandPort::open(words.target, words.temporary, PortUse::admin);
  if (!port) return refuse(port.error());
  const auto data = identify(**port, command);
  if (!data) return refuse(data.error());
  const auto nsids = nvme::decode_namespace_list(*data);
  if (!nsids) {
    return refuse({fmt::format("{}: {}", words.target, nsids.error().message), EBADMSG});
  }
  return show(words.format == OutputFormat::json ? nvme::namespace_list_to_json(*nsids)
                                                 : nvme::print_namespace_list(*nsids));
}

int ns_descs(const IdentifyWords& words) {
  return with_namespace(words, [&](CommandPort& port, std::uint32_t nsid) {
    using Descriptors = std::vector<nvme::NamespaceDescriptor>;
    return show_page(
        port, words, {.cns = Cns::namespace_descriptors, .nsid = nsid},
        nvme::decode_descriptor_list, [](const Descriptors& all) { return nvme::to_json(all); },
        [nsid](const Descriptors& all) { return nvme::print(all, nsid); });
  });
}

int nvm_id_ctrl(const IdentifyWords& words) {
  return show_page(words, {.cns = Cns::csi_controller, .csi = nvme::Csi::nvm},
                   nvme::IdentifyNvmController::decode, kToJson, kToText);
}

int nvm_id_ns(const IdentifyWords& words) {
  return with_namespace(words, [&](CommandPort& port, std::uint32_t nsid) {
    const auto data = identify(port, {.cns = Cns::identify_namespace, .nsid = nsid});
    if (!data) return refuse(data.error());
    const auto ns = nvme::IdentifyNamespace::decode(*data);
    using Id = nvme::IdentifyNvmNamespace;
    return show_page(
        port, words,
        {.cns = Cns::csi_namespace,
         .nsid = nsid,
         .csi = nvme::Csi::nvm,
         .uuid_index = words.uuid_index},
        Id::decode, [&](const Id& id) { return nvme::to_json(id, ns); },
        [&](const Id& id) { return nvme::print(id, ns, nsid, words.detail); });
  });
}

int cmdset_ind_id_ns(const IdentifyWords& words) {
  return with_namespace(words, [&](CommandPort& port, std::uint32_t nsid) {
    using Id = nvme::IdentifyIndependentNamespace;
    return show_page(port, words, {.cns = Cns::independent_namespace, .nsid = nsid}, Id::decode,
                     kToJson, [&](const Id& id) { return nvme::print(id, nsid, words.detail); });
  });
}

int id_iocs(const IdentifyWords& words) {
  return show_page(
      words, {.cns = Cns::command_sets, .cntid = words.id.value_or(kThisController)},
      nvme::decode_command_sets, [](const auto& all) { return nvme::command_sets_to_json(all); },
      [](const auto& all) { return nvme::print_command_sets(all); });
}

int list_ctrl(const IdentifyWords& words) {
  const std::uint32_t nsid = words.nsid.value_or(0);
  return show_page(words,
                   {.cns = nsid == 0 ? Cns::controllers : Cns::namespace_controllers,
                    .nsid = nsid,
                    .cntid = words.id.value_or(0)},
                   nvme::ControllerList::decode, kToJson, kToText);
}

int list_endgrp(const IdentifyWords& words) {
  return show_page(words, {.cns = Cns::endurance_groups, .cns_specific = words.id.value_or(0)},
                   nvme::EnduranceGroupList::decode, kToJson, kToText);
}

int id_nvmset(const IdentifyWords& words) {
  const std::uint16_t first = words.id.value_or(0);
  return show_page(words, {.cns = Cns::nvm_sets, .cns_specific = first}, nvme::NvmSetList::decode,
                   kToJson,
                   [first](const nvme::NvmSetList& list) { return nvme::print(list, first); });
}

int id_uuid(const IdentifyWords& words) {
  return show_page(words, {.cns = Cns::uuids}, nvme::UuidList::decode, kToJson,
                   [&](const nvme::UuidList& list) { return nvme::print(list, words.detail); });
}

int id_domain(const IdentifyWords& words) {
  return show_page(words, {.cns = Cns::domains, .cns_specific = words.id.value_or(kDomainsDefault)},
                   nvme::DomainList::decode, kToJson, kToText);
}

int id_ns_granularity(const IdentifyWords& words) {
  return show_page(words, {.cns = Cns::namespace_granularity},
                   nvme::NamespaceGranularityList::decode, kToJson, kToText);
}

int primary_ctrl_caps(const IdentifyWords& words) {
  using Caps = nvme::PrimaryControllerCapabilities;
  return show_page(words, {.cns = Cns::primary_capabilities, .cntid = words.id.value_or(0)},
                   Caps::decode, kToJson,
                   [&](const Caps& caps) { return nvme::print(caps, words.detail); });
}

int list_secondary(const IdentifyWords& words) {
  const std::uint32_t most = words.entries.value_or(nvme::kSecondaryControllers);
  if (most == 0) return refuse({"--num-entries 0 shows nothing: give 1 or more", EINVAL});
  return show_page(
      words,
      {.cns = Cns::secondary_controllers,
       .nsid = words.nsid.value_or(0),
       .cntid = words.id.value_or(0)},
      [most](const Bytes& data) {
        auto list = nvme::SecondaryControllerList::decode(data);
        if (list.controllers.size() > most) list.controllers.resize(most);
        return list;
      },
      kToJson, kToText);
}

}  // namespace nvmf::tools
