// What a hostile controller may answer to Identify, Get Log Page, Get Features and Property Get,
// and what people see of it: every decoder of src/nvme, and every printer behind it.
//
// Whatever comes: it decodes or is refused in a sentence, a decoded structure is still the same
// after it was encoded, text can be shown on a terminal, and JSON is JSON.
#include <array>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz/input.h"
#include "nvme/admin.h"
#include "nvme/check.h"
#include "nvme/explain.h"
#include "nvme/fabrics.h"
#include "nvme/features.h"
#include "nvme/hex_dump.h"
#include "nvme/identify.h"
#include "nvme/identify_lists.h"
#include "nvme/json.h"
#include "nvme/json_discovery.h"
#include "nvme/json_identify.h"
#include "nvme/json_logs.h"
#include "nvme/log_pages.h"
#include "nvme/print.h"
#include "nvme/print_discovery.h"
#include "nvme/print_identify.h"
#include "nvme/print_logs.h"
#include "nvme/print_registers.h"
#include "nvme/text.h"

namespace nvmf::fuzz {
namespace {

using namespace nvmf::nvme;

/// Nothing a terminal would obey.
void check_text(std::string_view text) {
  NVMF_CHECK(valid_utf8(text));
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    NVMF_CHECK((byte >= 0x20 && byte != 0x7f) || c == '\n' || c == '\t');
  }
}

void check_json(const std::string& json) {
  NVMF_CHECK(nlohmann::json::accept(json));
}

/// A refusal is a sentence for people.
template <class T>
bool decoded(const Result<T>& result) {
  if (!result) check_text(result.error().message);
  return result.has_value();
}

/// What encode() writes of it decodes to the same again.
template <std::size_t N, class T>
void check_round_trip(const T& value) {
  std::array<std::byte, N> bytes{};
  value.encode(bytes);
  NVMF_CHECK(T::decode(bytes) == value);
}

/// Bytes of the input, then zeroes, as long as the structure.
std::vector<std::byte> whole(Input& in, std::size_t size) {
  auto bytes = in.bytes(size);
  bytes.resize(size);
  return bytes;
}

constexpr std::string_view kDevice = "nvme0";

void identify_controller(Input& in) {
  const auto id = IdentifyController::decode(whole(in, kIdentifyBytes));
  check_text(print(id));
  check_text(print(id, Detail::human));
  check_text(print_vendor_specific(id));
  check_json(to_json(id));
  check_round_trip<kIdentifyBytes>(id);
}

void identify_namespace(Input& in) {
  const auto id = IdentifyNamespace::decode(whole(in, kIdentifyBytes));
  const std::uint32_t nsid = in.u32();
  check_text(print(id, nsid));
  check_text(print(id, nsid, Detail::human));
  check_text(print_vendor_specific(id));
  check_json(to_json(id));
  check_round_trip<kIdentifyBytes>(id);
}

/// What text, JSON and bytes of it have in common for every kind of list.
template <class T>
void check_list(std::span<const std::byte> bytes) {
  const T list = T::decode(bytes);
  check_text(print(list));
  check_json(to_json(list));
  check_round_trip<kIdentifyBytes>(list);
}

void identify_lists(Input& in) {
  const auto bytes = whole(in, kIdentifyBytes);
  check_list<ControllerList>(bytes);
  check_list<EnduranceGroupList>(bytes);
  check_list<SecondaryControllerList>(bytes);
  check_list<NamespaceGranularityList>(bytes);
  check_list<DomainList>(bytes);
  check_list<UuidList>(bytes);
  check_text(print(UuidList::decode(bytes), Detail::human));
  check_list<PrimaryControllerCapabilities>(bytes);
  check_text(print(PrimaryControllerCapabilities::decode(bytes), Detail::human));
  const auto sets = NvmSetList::decode(bytes);
  check_text(print(sets, in.u16()));
  check_json(to_json(sets));
  check_round_trip<kIdentifyBytes>(sets);
}

void identify_namespaces(Input& in) {
  const auto bytes = whole(in, kIdentifyBytes);
  if (const auto nsids = decode_namespace_list(bytes); decoded(nsids)) {
    check_text(print_namespace_list(*nsids));
    check_json(namespace_list_to_json(*nsids));
  }
  decoded(NamespaceDescriptors::decode(bytes));
  const auto descriptors = decode_descriptor_list(bytes);
  check_text(print(descriptors, in.u32()));
  check_json(to_json(descriptors));
  const auto combinations = decode_command_sets(bytes);
  check_text(print_command_sets(combinations));
  check_json(command_sets_to_json(combinations));
}

void identify_command_sets(Input& in) {
  const auto bytes = whole(in, kIdentifyBytes);
  const std::uint32_t nsid = in.u32();
  check_list<IdentifyNvmController>(bytes);
  const auto independent = IdentifyIndependentNamespace::decode(bytes);
  check_text(print(independent, nsid));
  check_text(print(independent, nsid, Detail::human));
  check_json(to_json(independent));
  check_round_trip<kIdentifyBytes>(independent);
  // Which formats there are is said by another page, which may contradict this one.
  const auto ns = IdentifyNamespace::decode(whole(in, kIdentifyBytes));
  const auto nvm = IdentifyNvmNamespace::decode(bytes);
  check_text(print(nvm, ns, nsid));
  check_text(print(nvm, ns, nsid, Detail::human));
  check_json(to_json(nvm, ns));
  check_round_trip<kIdentifyBytes>(nvm);
}

void smart(Input& in) {
  const auto log = SmartLog::decode(whole(in, kSmartBytes));
  check_text(print(log, kDevice, in.u32()));
  check_text(print(log, kDevice, 0, Detail::human));
  check_json(to_json(log));
  check_json(to_json(log, Detail::human));
  check_round_trip<kSmartBytes>(log);
}

void errors(Input& in) {
  std::vector<ErrorEntry> log(in.below(17));
  for (ErrorEntry& entry : log) {
    entry = ErrorEntry::decode(whole(in, kErrorEntryBytes));
    check_round_trip<kErrorEntryBytes>(entry);
    check_text(explain(entry.status(), StatusContext::admin));
  }
  check_text(print(log, kDevice));
  check_json(to_json(log));
}

void firmware(Input& in) {
  const auto log = FirmwareSlots::decode(whole(in, kFirmwareSlotBytes));
  check_text(print(log, kDevice));
  check_json(to_json(log, kDevice));
  check_round_trip<kFirmwareSlotBytes>(log);
}

void effects(Input& in) {
  const Csi csi = static_cast<Csi>(in.u8());
  const auto log = EffectsLog::decode(whole(in, kEffectsBytes));
  check_text(print(log, csi, in.flag() ? Detail::human : Detail::brief));
  check_json(to_json(log, csi));
  check_round_trip<kEffectsBytes>(log);
}

void changed_namespaces(Input& in) {
  const auto log = ChangedNamespaces::decode(whole(in, kChangedNamespacesBytes));
  check_text(print(log));
  check_json(to_json(log, kDevice));
  check_round_trip<kChangedNamespacesBytes>(log);
}

void ana(Input& in) {
  const auto log = AnaLog::decode(in.bytes(4096));
  if (!decoded(log)) return;
  check_text(print(*log, kDevice));
  check_json(to_json(*log, kDevice));
  const auto again = AnaLog::decode(log->encode());
  NVMF_CHECK(again && *again == *log);
}

void self_test(Input& in) {
  const std::size_t entries = in.u8();
  const auto log = SelfTestLog::decode(whole(in, kSelfTestBytes));
  check_text(print(log, kDevice, entries));
  check_text(print(log, kDevice, entries, Detail::human));
  check_json(to_json(log, entries));
  check_round_trip<kSelfTestBytes>(log);
}

void supported_pages(Input& in) {
  const auto log = SupportedLogPages::decode(whole(in, kSupportedLogPagesBytes));
  check_text(print(log, kDevice, in.flag() ? Detail::human : Detail::brief));
  check_json(to_json(log));
  check_round_trip<kSupportedLogPagesBytes>(log);
}

void discovery(Input& in) {
  const auto header = DiscoveryHeader::decode(whole(in, kDiscoveryHeaderBytes / 32));
  check_round_trip<kDiscoveryHeaderBytes>(header);
  std::vector<DiscoveryEntry> entries(in.below(5));
  for (DiscoveryEntry& entry : entries) {
    entry = DiscoveryEntry::decode(whole(in, kDiscoveryEntryBytes));
    check_round_trip<kDiscoveryEntryBytes>(entry);
  }
  check_text(print(header, entries));
  check_json(to_json(header, entries));
}

void features(Input& in) {
  FeatureAnswer answer{.feature = in.u8(), .select = in.u8(), .result = in.u32(), .data = {}};
  FeatureSetting setting{.feature = answer.feature,
                         .value = in.u32(),
                         .cdw12 = in.u32(),
                         .save = in.flag(),
                         .result = answer.result,
                         .data = {}};
  const std::size_t size = feature_data_bytes(answer.feature, in.u8());
  // As long as it should be, or cut short.
  const auto data = in.flag() ? whole(in, size) : in.bytes(4096);
  answer.data = data;
  setting.data = data;
  check_text(print(answer));
  check_text(print(answer, Detail::human));
  check_text(print(setting));
}

void registers(Input& in) {
  const auto four = [&] {
    return in.flag() ? std::optional<std::uint32_t>(in.u32()) : std::nullopt;
  };
  const auto eight = [&] {
    return in.flag() ? std::optional<std::uint64_t>(in.u32() | std::uint64_t{in.u32()} << 32)
                     : std::nullopt;
  };
  const Registers values{.cap = eight(),
                         .vs = four(),
                         .cc = four(),
                         .csts = four(),
                         .nssr = four(),
                         .crto = four(),
                         .asq = eight()};
  check_text(print(values));
  check_text(print(values, Detail::human));
  check_json(to_json(values));
  const std::uint32_t offset = in.u32();
  for (const std::uint32_t at : {offset, offset % 0x70}) {
    const std::uint64_t value = values.cap.value_or(offset);
    check_text(print_property(at, value));
    check_text(print_property(at, value, Detail::human));
    check_text(print_set_property(at, value));
  }
}

// Words of a completion, and numbers that have fields.
void numbers(Input& in) {
  const std::uint64_t value = in.u32() | std::uint64_t{in.u32()} << 32;
  const auto low = static_cast<std::uint32_t>(value);
  const Status status = Status::decode(in.u16());
  for (const StatusContext context :
       {StatusContext::admin, StatusContext::fabrics, StatusContext::nvm}) {
    check_text(describe(status, context));
    check_text(explain(status, context));
  }
  check_text(nvme_cli_status_line(status));
  NVMF_CHECK(ControllerCapabilities::decode(ControllerCapabilities::decode(value).encode()) ==
             ControllerCapabilities::decode(value));
  NVMF_CHECK(ControllerConfiguration::decode(ControllerConfiguration::decode(low).encode()) ==
             ControllerConfiguration::decode(low));
  static_cast<void>(ControllerStatus::decode(low));
  static_cast<void>(QueueCount::decode(low));
  static_cast<void>(AsyncEvent::decode(low));
  static_cast<void>(ConnectResponse::decode(value));
  static_cast<void>(ConnectInvalidParameter::decode(value));
}

// A host's side of it: what a controller of ours decodes.
void commands(Input& in) {
  const auto bytes = whole(in, 4096);
  const Sqe sqe = Sqe::decode(std::span(bytes).first<kSqeBytes>());
  static_cast<void>(Cqe::decode(std::span(bytes).first<kCqeBytes>()));
  static_cast<void>(IdentifyCommand::from_sqe(sqe));
  static_cast<void>(FeatureCommand::from_sqe(sqe));
  static_cast<void>(AbortCommand::from_sqe(sqe));
  static_cast<void>(GetLogPage::from_sqe(sqe));
  static_cast<void>(ConnectCommand::from_sqe(sqe));
  static_cast<void>(PropertyCommand::from_sqe(sqe));
  static_cast<void>(HostBehavior::decode(bytes));
  decoded(ConnectData::decode(bytes));
  decode_dsm_ranges(bytes);
}

void bytes_of_a_log(Input& in) {
  const std::uint8_t id = in.u8();
  const std::uint32_t nsid = in.u32();
  check_text(print_log_bytes(kDevice, id, nsid, in.bytes(4096)));
}

// Names that users and peers chose.
void texts(Input& in) {
  const auto bytes = in.bytes(256);
  std::string name;
  for (const std::byte b : bytes) name.push_back(static_cast<char>(b));
  check_text(printable(name));
  check_text(print(FirmwareSlots{}, name));
  check_json(to_json(FirmwareSlots{}, name));
  check_json(to_json(AnaLog{}, name));
  check_json(to_json(ChangedNamespaces{}, name));
  const std::vector<Subsystem> subsystems = {
      {.name = name,
       .nqn = name,
       .hostnqn = name,
       .hostid = name,
       .paths = {{.name = name, .transport = "tcp", .address = name, .state = name}}}};
  check_text(print(subsystems));
  check_json(to_json(subsystems));
}

constexpr std::array kGames = {identify_controller,
                               identify_namespace,
                               identify_lists,
                               smart,
                               errors,
                               firmware,
                               effects,
                               changed_namespaces,
                               ana,
                               self_test,
                               supported_pages,
                               discovery,
                               features,
                               registers,
                               numbers,
                               commands,
                               bytes_of_a_log,
                               texts,
                               identify_namespaces,
                               identify_command_sets};

}  // namespace
}  // namespace nvmf::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  nvmf::fuzz::Input input(data, size);
  nvmf::fuzz::kGames[input.below(nvmf::fuzz::kGames.size())](input);
  return 0;
}
