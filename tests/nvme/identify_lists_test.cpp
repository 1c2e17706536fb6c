#include "nvme/identify_lists.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "nvme/bytes.h"
#include "nvme/json_identify.h"
#include "nvme/print_identify.h"

namespace nvmf::nvme {
namespace {

using test::Bytes;
using test::encoded;
using test::random_bytes;
using ::testing::HasSubstr;

TEST(IdentifyLists, FieldsStandWhereTheSpecificationPutsThem) {
  const Bytes sets = Bytes(4096).put(0, {1}).put(128, {0x34, 0x12, 0x78, 0x56}).put(136, {1, 2});
  const auto set = NvmSetList::decode(sets.span()).sets.at(0);
  EXPECT_EQ(set.nvmsetid, 0x1234);
  EXPECT_EQ(set.endgid, 0x5678);
  EXPECT_EQ(set.r4krt, 0x0201u);

  const Bytes secondary =
      Bytes(4096).put(0, {1}).put(32, {1, 0, 2, 0, 1, 0, 0, 0, 3, 0, 4, 0, 5, 0});
  EXPECT_EQ(SecondaryControllerList::decode(secondary.span()).controllers.at(0),
            (SecondaryController{.scid = 1, .pcid = 2, .scs = 1, .vfn = 3, .nvq = 4, .nvi = 5}));

  const Bytes domains =
      Bytes(4096).put(0, {1}).put(128, {9}).put(144, {7}).put(160, {6}).put(176, {5});
  EXPECT_EQ(DomainList::decode(domains.span()).domains.at(0),
            (Domain{.domainid = 9,
                    .cap = {.low = 7, .high = 0},
                    .unallocated = {.low = 6, .high = 0},
                    .megcap = {.low = 5, .high = 0}}));

  const Bytes uuids = Bytes(4096).put(32, {2}).put(48, {1, 2, 3});
  ASSERT_EQ(UuidList::decode(uuids.span()).entries.size(), 1u);
  EXPECT_EQ(UuidList::decode(uuids.span()).entries[0].association, 2);

  const Bytes granularity = Bytes(4096).put(0, {1}).put(4, {1}).put(48, {5}).put(56, {6});
  EXPECT_EQ(NamespaceGranularityList::decode(granularity.span()).descriptors.at(1),
            (NamespaceGranularity{.nszegran = 5, .ncapgran = 6}));

  const Bytes primary = Bytes(4096).put(2, {3}).put(4, {2}).put(40, {4}).put(78, {5});
  const auto caps = PrimaryControllerCapabilities::decode(primary.span());
  EXPECT_EQ(caps.portid, 3);
  EXPECT_EQ(caps.crt, 2);
  EXPECT_EQ(caps.vqrfap, 4);
  EXPECT_EQ(caps.vigran, 5);

  const Bytes controllers = Bytes(4096).put(0, {2, 0, 5, 0, 6, 1});
  EXPECT_THAT(ControllerList::decode(controllers.span()).cntlids, ::testing::ElementsAre(5, 0x106));
}

template <class T>
void survives(const std::vector<std::byte>& bytes) {
  const T value = T::decode(bytes);
  EXPECT_EQ(T::decode(encoded<kIdentifyBytes>(value)), value);
  EXPECT_FALSE(print(value).empty());
  EXPECT_TRUE(nlohmann::json::accept(to_json(value)));
}

TEST(IdentifyLists, AnyBytesDecodeEncodeAndAreShown) {
  for (std::uint32_t seed = 0; seed < 40; ++seed) {
    auto bytes = random_bytes(kIdentifyBytes, seed);
    if (seed == 0) std::ranges::fill(bytes, std::byte{0xff});
    if (seed == 1) std::ranges::fill(bytes, std::byte{0});
    survives<ControllerList>(bytes);
    survives<EnduranceGroupList>(bytes);
    survives<SecondaryControllerList>(bytes);
    survives<NamespaceGranularityList>(bytes);
    survives<PrimaryControllerCapabilities>(bytes);
    survives<UuidList>(bytes);
    survives<DomainList>(bytes);
    const auto sets = NvmSetList::decode(bytes);
    EXPECT_EQ(NvmSetList::decode(encoded<kIdentifyBytes>(sets)), sets);
    EXPECT_FALSE(print(sets, 0).empty());
    const auto ns = IdentifyNamespace::decode(bytes);
    const auto nvm = IdentifyNvmNamespace::decode(bytes);
    EXPECT_FALSE(print(nvm, ns, 1, Detail::human).empty());
    EXPECT_TRUE(nlohmann::json::accept(to_json(nvm, ns)));
    EXPECT_FALSE(print(ns, 1, Detail::human).empty());
    const auto descriptors = decode_descriptor_list(bytes);
    EXPECT_FALSE(print(descriptors, 1).empty());
    EXPECT_TRUE(nlohmann::json::accept(to_json(descriptors)));
  }
}

TEST(IdentifyLists, ACountBeyondThePageIsCut) {
  std::vector<std::byte> bytes(kIdentifyBytes, std::byte{0xff});
  EXPECT_EQ(ControllerList::decode(bytes).cntlids.size(), kIdentifierListEntries);
  EXPECT_EQ(NvmSetList::decode(bytes).sets.size(), kNvmSets);
  EXPECT_EQ(SecondaryControllerList::decode(bytes).controllers.size(), kSecondaryControllers);
  EXPECT_EQ(NamespaceGranularityList::decode(bytes).descriptors.size(), kNamespaceGranularities);
  EXPECT_EQ(UuidList::decode(bytes).entries.size(), kUuids);
  EXPECT_EQ(DomainList::decode(bytes).domains.size(), kDomains);
}

TEST(NamespaceDescriptorList, EndsAtLengthZeroAndBeforeWhatWouldLeaveThePage) {
  Bytes bytes(kIdentifyBytes);
  bytes.put(0, {1, 8, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 2, 0, 0, 0, 1, 8});
  ASSERT_EQ(decode_descriptor_list(bytes.span()).size(), 1u);
  EXPECT_EQ(print(decode_descriptor_list(bytes.span()), 2),
            "NVME Namespace Identification Descriptors NS 2:\neui64   : 0102030405060708\n");

  // Descriptors of 4 + 255 bytes: 15 fit in a page, and 211 bytes are left.
  Bytes full(kIdentifyBytes);
  for (std::size_t at = 0; at + 4 < kIdentifyBytes; at += 259) full.put(at, {9, 255});
  EXPECT_EQ(decode_descriptor_list(full.span()).size(), 15u);
}

TEST(NamespaceDescriptorList, AWrongLengthShowsNoNeighbours) {
  Bytes bytes(kIdentifyBytes);
  bytes.put(0, {1, 2, 0, 0, 0xaa, 0xbb, 3, 3, 0, 0, 1, 2, 3, 4, 2, 0, 0, 7, 8});
  const auto list = decode_descriptor_list(bytes.span());
  EXPECT_THAT(print(list, 1), HasSubstr("eui64   : aabb\nuuid    : 010203\ncsi     : 0708\n"));
  const auto json = nlohmann::json::parse(to_json(list));
  EXPECT_EQ(json["ns-descs"][1]["uuid"], "010203");
  EXPECT_EQ(json["ns-descs"][2]["loc"], 13);
  EXPECT_EQ(json["ns-descs"][2]["nidl"], 2);
}

TEST(PrintIdentify, LowerBitsOfFlbasAloneCountWithSixteenFormats) {
  IdentifyNamespace ns;
  ns.nlbaf = 15;
  ns.flbas = 0x62;
  EXPECT_THAT(print(ns, 1), HasSubstr("\nlbaf  2 : ms:0   lbads:0  rp:0 (in use)\n"));
  EXPECT_THAT(print(IdentifyNvmNamespace(), ns, 1), HasSubstr("\nelbaf  2 : pif:0 lbads:0  (in"));
  ns.nlbaf = 63;
  EXPECT_THAT(print(ns, 1), HasSubstr("\nlbaf 50 : ms:0   lbads:0  rp:0 (in use)\n"));
}

TEST(PrintIdentify, ABlockTooLargeIsNoOverflow) {
  IdentifyNamespace ns;
  ns.nlbaf = 3;
  ns.lbaf[0].lbads = 31;
  ns.lbaf[1].lbads = 63;
  ns.lbaf[2].lbads = 64;
  const std::string text = print(ns, 1, Detail::human);
  EXPECT_THAT(text, HasSubstr("Data Size: 2147483648 bytes"));
  EXPECT_THAT(text, HasSubstr("Data Size: 9223372036854775808 bytes"));
  EXPECT_THAT(text, HasSubstr("Data Size: 0  bytes"));
}

}  // namespace
}  // namespace nvmf::nvme
