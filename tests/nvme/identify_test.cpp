#include "nvme/identify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nvme/bytes.h"

namespace nvmf::nvme {
namespace {

using test::Bytes;
using test::encoded;
using test::random_bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Base 2.1 §5.1.13.2.1: offsets written down from the figure.
Bytes controller_bytes() {
  return Bytes(4096)
      .put(0, {0x34, 0x12, 0x78, 0x56})
      .text(4, 20, "SN0001", ' ')
      .text(24, 40, "A model", ' ')
      .text(64, 8, "1.0", ' ')
      .put(72, {6, 0x02, 0x01, 0xac, 0x0a, 5, 0x23, 0x01, 0x00, 0x00, 0x02, 0x00})
      .put(84, {1, 2, 3, 4, 5, 6, 7, 8, 0x00, 0x09, 0, 0x80, 0x41, 0, 0, 0, 0x0d, 0x0c})
      .put(111, {1})
      .put(112, {0xf0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
      .put(128, {1, 0, 2, 0, 3, 0})
      .put(253, {1, 2, 3})
      .put(256, {0x0e, 0x00, 3, 7, 0x17, 0x2e, 63, 1, 0x11, 0x22})
      .put(266, {0x57, 0x01, 0x5c, 0x01, 0x10, 0x27, 1, 0, 0, 0x10, 2, 0, 0, 0x20})
      .put(280, {0, 0, 0, 0, 0, 0, 0, 1, 2})
      .put(296, {3})
      .put(312, {1, 2, 3, 4, 5, 6, 7, 8, 0x0a, 0x00, 1, 0, 2, 0, 3, 0, 4, 0, 0, 0})
      .put(332, {5, 0, 0, 0, 6, 0, 7, 0, 8, 0, 9, 10, 11, 0, 0, 0, 12, 0, 0, 0, 13, 0, 0, 0, 14, 0})
      .put(368, {15})
      .put(386, {0x10, 0x27})
      .put(512,
           {0x66, 0x44, 0x80, 0x00, 0x00, 0x04, 0, 0, 0x0d, 0x00, 1, 0, 4, 7, 1, 0, 2, 0, 3, 4})
      .put(532, {5, 0, 6, 0, 0x01, 0x00, 0x30, 0x00, 7, 0, 0, 0, 8})
      .put(560, {9, 0, 0, 0, 10, 0, 0, 0})
      .text(768, 256, "nqn.2024-01.org.example:disk", '\0')
      .put(1792, {4, 2, 0, 0, 1, 0, 0, 0, 2, 0, 1, 3, 1, 0, 2})
      .put(2048,
           {0x10, 0x27, 0, 3, 1, 0, 0, 0, 2, 0, 0, 0, 4, 5, 6, 7, 8, 9, 0x80, 0, 10, 11, 0x42})
      .put(2080, {1})
      .put(3072, {0xee})
      .put(4095, {0xef});
}

void expect_capabilities(const IdentifyController& id) {
  EXPECT_EQ(id.vid, 0x1234);
  EXPECT_EQ(id.ssvid, 0x5678);
  EXPECT_EQ(id.sn, "SN0001");
  EXPECT_EQ(id.mn, "A model");
  EXPECT_EQ(id.fr, "1.0");
  EXPECT_EQ(id.rab, 6);
  EXPECT_EQ(id.ieee, 0xac0102u);
  EXPECT_EQ(id.cmic, kCmicAna | kCmicMultiController);
  EXPECT_EQ(id.mdts, 5);
  EXPECT_EQ(id.cntlid, 0x0123);
  EXPECT_EQ(id.ver, kVersion20);
  EXPECT_EQ(id.rtd3r, 0x04030201u);
  EXPECT_EQ(id.rtd3e, 0x08070605u);
  EXPECT_EQ(id.oaes, kOaesDiscoveryChange | kOaesAnaChange | kOaesNamespaceAttributes);
  EXPECT_EQ(id.ctratt, kCtrattTbkas | kCtrattHostId128);
  EXPECT_EQ(id.rrls, 0x0c0d);
  EXPECT_EQ(id.cntrltype, ControllerType::io);
  EXPECT_EQ(id.fguid[0], std::byte{0xf0});
  EXPECT_EQ(id.crdt1 * 100 + id.crdt2 * 10 + id.crdt3, 123);
  EXPECT_EQ(id.nvmsr * 100 + id.vwci * 10 + id.mec, 123);
}

void expect_admin(const IdentifyController& id) {
  EXPECT_EQ(id.oacs, kOacsFormat | kOacsFirmware | kOacsNamespaceManagement);
  EXPECT_EQ(id.acl, 3);
  EXPECT_EQ(id.aerl, 7);
  EXPECT_EQ(id.frmw, 0x17);
  EXPECT_EQ(id.lpa, kLpaEffects | kLpaExtendedData | kLpaSupportedPages | 8);
  EXPECT_EQ(id.elpe, 63);
  EXPECT_EQ(id.npss, 1);
  EXPECT_EQ(id.avscc, 0x11);
  EXPECT_EQ(id.apsta, 0x22);
  EXPECT_EQ(id.wctemp, 343);
  EXPECT_EQ(id.cctemp, 348);
  EXPECT_EQ(id.mtfa, 10000);
  EXPECT_EQ(id.hmpre, 0x10000001u);
  EXPECT_EQ(id.hmmin, 0x20000002u);
  EXPECT_EQ(id.tnvmcap, (Uint128{.low = 1ull << 56, .high = 2}));
  EXPECT_EQ(id.unvmcap.low, 3u);
  EXPECT_EQ(id.rpmbs, 0x04030201u);
  EXPECT_EQ(id.edstt, 0x0605);
  EXPECT_EQ(id.dsto, 7);
  EXPECT_EQ(id.fwug, 8);
  EXPECT_EQ(id.kas, 10);
  EXPECT_EQ(id.hctma * 100 + id.mntmt * 10 + id.mxtmt, 123);
  EXPECT_EQ(id.sanicap, 4u);
  EXPECT_EQ(id.hmminds, 5u);
  EXPECT_EQ(id.hmmaxd, 6);
  EXPECT_EQ(id.nsetidmax, 7);
  EXPECT_EQ(id.endgidmax, 8);
  EXPECT_EQ(id.anatt, 9);
  EXPECT_EQ(id.anacap, 10);
  EXPECT_EQ(id.anagrpmax, 11u);
  EXPECT_EQ(id.nanagrpid, 12u);
  EXPECT_EQ(id.pels, 13u);
  EXPECT_EQ(id.domainid, 14);
  EXPECT_EQ(id.megcap.low, 15u);
  EXPECT_EQ(id.cqt, 10000);
}

void expect_io(const IdentifyController& id) {
  EXPECT_EQ(id.sqes, 0x66);
  EXPECT_EQ(id.cqes, 0x44);
  EXPECT_EQ(id.maxcmd, 128);
  EXPECT_EQ(id.nn, 1024u);
  EXPECT_EQ(id.oncs, kOncsCompare | kOncsDsm | kOncsWriteZeroes);
  EXPECT_EQ(id.fuses, kFusesCompareWrite);
  EXPECT_EQ(id.fna, 4);
  EXPECT_EQ(id.vwc, kVwcPresent | kVwcFlushAllSupported);
  EXPECT_EQ(id.awun, 1);
  EXPECT_EQ(id.awupf, 2);
  EXPECT_EQ(id.icsvscc, 3);
  EXPECT_EQ(id.nwpc, 4);
  EXPECT_EQ(id.acwu, 5);
  EXPECT_EQ(id.ocfs, 6);
  EXPECT_EQ(id.sgls, kSglsSupported | kSglsOffset | kSglsTransportDataBlock);
  EXPECT_EQ(id.mnan, 7u);
  EXPECT_EQ(id.maxdna.low, 8u);
  EXPECT_EQ(id.maxcna, 9u);
  EXPECT_EQ(id.oaqd, 10u);
  EXPECT_EQ(id.subnqn, "nqn.2024-01.org.example:disk");
  EXPECT_EQ(id.ioccsz, 0x204u);
  EXPECT_EQ(id.iorcsz, 1u);
  EXPECT_EQ(id.icdoff, 2);
  EXPECT_EQ(id.fcatt, kFcattStatic);
  EXPECT_EQ(id.msdbd, 3);
  EXPECT_EQ(id.ofcs, kOfcsDisconnect);
  EXPECT_EQ(id.dctype, 2);
  EXPECT_EQ(id.psd[0], (PowerState{.mp = 10000,
                                   .flags = kPowerStateMps | kPowerStateNops,
                                   .enlat = 1,
                                   .exlat = 2,
                                   .rrt = 4,
                                   .rrl = 5,
                                   .rwt = 6,
                                   .rwl = 7,
                                   .idlp = 0x0908,
                                   .ips = 0x80,
                                   .actp = 0x0b0a,
                                   .apws = 0x42}));
  EXPECT_EQ(id.psd[1].mp, 1);
  EXPECT_EQ(id.vs[0], std::byte{0xee});
  EXPECT_EQ(id.vs[1023], std::byte{0xef});
}

TEST(IdentifyController, GoldenBytesBothWays) {
  const Bytes golden = controller_bytes();
  const IdentifyController id = IdentifyController::decode(golden.span());
  expect_capabilities(id);
  expect_admin(id);
  expect_io(id);
  EXPECT_EQ(encoded<4096>(id), golden.vector());
}

TEST(IdentifyController, AnyBytesDecodeAndEncodingKeepsTheFields) {
  for (std::uint32_t seed = 0; seed < 50; ++seed) {
    const auto once = IdentifyController::decode(random_bytes(4096, seed));
    EXPECT_EQ(IdentifyController::decode(encoded<4096>(once)), once);
  }
}

TEST(IdentifyController, LongTextIsCutAtItsField) {
  IdentifyController id;
  id.sn = "0123456789012345678901234";
  id.subnqn = std::string(300, 'n');
  const auto back = IdentifyController::decode(encoded<4096>(id));
  EXPECT_EQ(back.sn, "01234567890123456789");
  EXPECT_EQ(back.mn, "");
  EXPECT_EQ(back.subnqn.size(), 256u);
}

TEST(IdentifyController, InCapsuleBytes) {
  IdentifyController id;
  for (const auto& [ioccsz, bytes] : {std::pair<std::uint32_t, std::uint64_t>{0, 0},
                                      {3, 0},
                                      {4, 0},
                                      {5, 16},
                                      {0x104, 4096},
                                      {0xffffffff, 0xfffffffffull - 15 - 64}}) {
    id.ioccsz = ioccsz;
    EXPECT_EQ(id.in_capsule_bytes(), bytes) << ioccsz;
  }
}

TEST(IdentifyController, MaxTransfer) {
  IdentifyController id;
  EXPECT_FALSE(id.max_transfer_bytes(0).has_value());
  id.mdts = 1;
  EXPECT_EQ(id.max_transfer_bytes(0), 8192u);
  id.mdts = 5;
  EXPECT_EQ(id.max_transfer_bytes(4), 1u << 21);
  id.mdts = 255;
  EXPECT_FALSE(id.max_transfer_bytes(15).has_value());
}

// NVM Command Set 1.2 §4.1.5.1.
Bytes namespace_bytes() {
  return Bytes(4096)
      .put(0, {1, 0, 0, 0, 0, 0, 0, 0x10, 2, 0, 0, 0, 0, 0, 0, 0x20, 3, 0, 0, 0, 0, 0, 0, 0x30})
      .put(24, {0x10, 1, 0x11, 3, 4, 5, 1, 7, 8, 0x09, 10, 0, 11, 0, 12, 0, 13, 0, 14, 0, 15, 0})
      .put(46, {16, 1, 17, 0, 0, 0, 0, 0, 0, 0, 18})
      .put(64, {19, 0, 20, 0, 21, 0, 22, 0, 23, 0, 24, 0, 25, 0, 0, 1, 26})
      .put(82, {27})
      .put(92, {28, 0, 0, 0})
      .put(99, {1, 29, 0, 30, 0})
      .put(104, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
      .put(120, {0xa0, 1, 2, 3, 4, 5, 6, 7})
      .put(128, {0, 0, 9, 2, 8, 0, 12, 1})
      .put(380, {1, 2, 3, 4})
      .put(384, {0xaa})
      .put(4095, {0xbb});
}

TEST(IdentifyNamespace, GoldenBytesBothWays) {
  const Bytes golden = namespace_bytes();
  const auto id = IdentifyNamespace::decode(golden.span());
  EXPECT_EQ(id.nsze, 0x1000000000000001u);
  EXPECT_EQ(id.ncap, 0x2000000000000002u);
  EXPECT_EQ(id.nuse, 0x3000000000000003u);
  EXPECT_EQ(id.nsfeat, kNsfeatOptimal);
  EXPECT_EQ(id.nlbaf, 1);
  EXPECT_EQ(id.flbas, 0x11);
  EXPECT_EQ(id.mc * 100 + id.dpc * 10 + id.dps, 345);
  EXPECT_EQ(id.nmic, kNmicShared);
  EXPECT_EQ(id.rescap, 7);
  EXPECT_EQ(id.fpi, 8);
  EXPECT_EQ(id.dlfeat, kDlfeatReadsZero | kDlfeatWriteZeroesDeac);
  EXPECT_THAT((std::array{id.nawun, id.nawupf, id.nacwu, id.nabsn, id.nabo, id.nabspf, id.noiob}),
              ElementsAre(10, 11, 12, 13, 14, 15, 0x110));
  EXPECT_EQ(id.nvmcap, (Uint128{.low = 17, .high = 18}));
  EXPECT_THAT((std::array{id.npwg, id.npwa, id.npdg, id.npda, id.nows, id.mssrl}),
              ElementsAre(19, 20, 21, 22, 23, 24));
  EXPECT_EQ(id.mcl, 0x01000019u);
  EXPECT_EQ(id.msrc, 26);
  EXPECT_EQ(id.nulbaf, 27);
  EXPECT_EQ(id.anagrpid, 28u);
  EXPECT_EQ(id.nsattr, kNsattrWriteProtected);
  EXPECT_EQ(id.nvmsetid, 29);
  EXPECT_EQ(id.endgid, 30);
  EXPECT_EQ(id.nguid[15], std::byte{15});
  EXPECT_EQ(id.eui64[0], std::byte{0xa0});
  EXPECT_EQ(id.lbaf[0], (LbaFormat{.ms = 0, .lbads = 9, .rp = 2}));
  EXPECT_EQ(id.lbaf[1], (LbaFormat{.ms = 8, .lbads = 12, .rp = 1}));
  EXPECT_EQ(id.lbaf[63], (LbaFormat{.ms = 0x0201, .lbads = 3, .rp = 4}));
  EXPECT_EQ(id.vs[0], std::byte{0xaa});
  EXPECT_EQ(id.vs.back(), std::byte{0xbb});
  EXPECT_EQ(encoded<4096>(id), golden.vector());
}

TEST(IdentifyNamespace, AnyBytesDecodeAndEncodingKeepsTheFields) {
  for (std::uint32_t seed = 0; seed < 50; ++seed) {
    const auto once = IdentifyNamespace::decode(random_bytes(4096, seed));
    EXPECT_EQ(IdentifyNamespace::decode(encoded<4096>(once)), once);
    static_cast<void>(once.block_bytes());
  }
}

TEST(IdentifyNamespace, BlockSize) {
  IdentifyNamespace id;
  EXPECT_FALSE(id.active());
  EXPECT_EQ(id.block_bytes(), 0u);  // LBADS 0: no format
  id.lbaf[0].lbads = 9;
  EXPECT_EQ(id.block_bytes(), 512u);
  id.flbas = 1;
  id.lbaf[1].lbads = 12;
  EXPECT_EQ(id.block_bytes(), 0u);  // beyond NLBAF
  id.nlbaf = 1;
  EXPECT_EQ(id.block_bytes(), 4096u);
  for (const int shift : {8, 32, 63, 255}) {
    id.lbaf[1].lbads = static_cast<std::uint8_t>(shift);
    EXPECT_EQ(id.block_bytes(), 0u);
  }
}

TEST(IdentifyNamespace, UpperFormatBitsCountOnlyWithMoreThanSixteenFormats) {
  IdentifyNamespace id;
  id.flbas = 0x61;
  id.nlbaf = 15;
  EXPECT_EQ(id.format_index(), 1u);
  id.nlbaf = 49;
  EXPECT_EQ(id.format_index(), 49u);
}

TEST(NamespaceList, BothWays) {
  const Bytes golden = Bytes(4096).put(0, {1, 0, 0, 0, 3, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff});
  const auto nsids = decode_namespace_list(golden.span());
  ASSERT_TRUE(nsids.has_value());
  EXPECT_THAT(*nsids, ElementsAre(1, 3, 0xfffffffe));
  std::vector<std::byte> out(4096, std::byte{0xa5});
  encode_namespace_list(*nsids, std::span<std::byte, 4096>(out.data(), 4096));
  EXPECT_EQ(out, golden.vector());
}

TEST(NamespaceList, FullListAndEmptyList) {
  std::vector<std::uint32_t> full(1024);
  for (std::uint32_t i = 0; i < full.size(); ++i) full[i] = i + 1;
  std::vector<std::byte> out(4096);
  encode_namespace_list(full, std::span<std::byte, 4096>(out.data(), 4096));
  EXPECT_EQ(decode_namespace_list(out).value(), full);
  EXPECT_THAT(decode_namespace_list(Bytes(4096).span()).value(), IsEmpty());
}

TEST(NamespaceList, ListsThatWouldMisleadAreRefused) {
  for (const auto& bad : {Bytes(4096).put(0, {2, 0, 0, 0, 1}), Bytes(4096).put(0, {2, 0, 0, 0, 2}),
                          Bytes(4096).put(0, {0xff, 0xff, 0xff, 0xff})}) {
    EXPECT_FALSE(decode_namespace_list(bad.span()).has_value());
  }
}

Bytes descriptor_bytes() {
  return Bytes(4096)
      .put(0, {1, 8, 0, 0, 0xe0, 1, 2, 3, 4, 5, 6, 7})
      .put(12, {2, 16, 0, 0, 0xf0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
      .put(32, {3, 16, 0, 0, 0xd0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
      .put(52, {4, 1, 0, 0, 2});
}

TEST(NamespaceDescriptors, GoldenBytesBothWays) {
  const Bytes golden = descriptor_bytes();
  const auto ids = NamespaceDescriptors::decode(golden.span());
  ASSERT_TRUE(ids.has_value()) << ids.error().message;
  EXPECT_EQ(ids->eui64.value()[0], std::byte{0xe0});
  EXPECT_EQ(ids->nguid.value()[0], std::byte{0xf0});
  EXPECT_EQ(ids->uuid.value()[0], std::byte{0xd0});
  EXPECT_EQ(ids->csi, Csi::zoned);
  EXPECT_EQ(encoded<4096>(*ids), golden.vector());
  EXPECT_EQ(encoded<4096>(NamespaceDescriptors{}), Bytes(4096).vector());
}

TEST(NamespaceDescriptors, UnknownTypesAreSkipped) {
  const Bytes bytes = Bytes(4096).put(0, {9, 3, 0, 0, 1, 2, 3, 4, 1, 0, 0, 0});
  const auto ids = NamespaceDescriptors::decode(bytes.span());
  ASSERT_TRUE(ids.has_value());
  EXPECT_EQ(ids->csi, Csi::nvm);
  EXPECT_FALSE(ids->uuid.has_value());
}

TEST(NamespaceDescriptors, BadOnesAreRefused) {
  const auto error = [](const Bytes& bytes) {
    return NamespaceDescriptors::decode(bytes.span()).error().message;
  };
  EXPECT_THAT(error(Bytes(4096).put(0, {3, 8})), HasSubstr("wrong length"));
  EXPECT_THAT(error(Bytes(16).put(0, {3, 16})), HasSubstr("longer than its list"));
  EXPECT_THAT(error(Bytes(4096).put(0, {1, 8, 0, 0, 1}).put(12, {1, 8, 0, 0, 2})),
              HasSubstr("two different values"));
  for (std::uint32_t seed = 0; seed < 100; ++seed) {
    static_cast<void>(NamespaceDescriptors::decode(random_bytes(4096, seed)));
    static_cast<void>(decode_namespace_list(random_bytes(4096, seed)));
  }
}

TEST(IdentifyNvmController, GoldenBytesBothWays) {
  const Bytes golden =
      Bytes(4096).put(0, {1, 2, 3, 4, 5, 0, 0, 0x10, 6, 0, 0, 0, 0, 0, 0, 0x20, 7, 8, 9, 0, 10});
  const auto id = IdentifyNvmController::decode(golden.span());
  EXPECT_EQ(id, (IdentifyNvmController{.vsl = 1,
                                       .wzsl = 2,
                                       .wusl = 3,
                                       .dmrl = 4,
                                       .dmrsl = 0x10000005,
                                       .dmsl = 0x2000000000000006,
                                       .kpiocap = 7,
                                       .wzdsl = 8,
                                       .aocs = 9,
                                       .ver = 10}));
  EXPECT_EQ(encoded<4096>(id), golden.vector());
}

TEST(IdentifyNvmNamespace, GoldenBytesBothWays) {
  const Bytes golden =
      Bytes(4096).put(0, {1, 0, 0, 0, 0, 0, 0, 0x80, 2, 3, 0, 0, 4}).put(264, {5, 0, 0, 0, 6});
  const auto id = IdentifyNvmNamespace::decode(golden.span());
  EXPECT_EQ(id.lbstm, 0x8000000000000001u);
  EXPECT_EQ(id.pic, 2);
  EXPECT_EQ(id.pifa, 3);
  EXPECT_EQ(id.elbaf[0], 4u);
  EXPECT_EQ(id.elbaf[63], 5u);
  EXPECT_EQ(id.npdgl, 6u);
  EXPECT_EQ(encoded<4096>(id), golden.vector());
}

TEST(IdentifyIndependentNamespace, GoldenBytesBothWays) {
  const Bytes golden = Bytes(4096).put(0, {1, 2, 3, 4, 5, 0, 0, 0, 6, 0, 7, 0, 8, 0, 1});
  const auto id = IdentifyIndependentNamespace::decode(golden.span());
  EXPECT_EQ(id, (IdentifyIndependentNamespace{.nsfeat = 1,
                                              .nmic = 2,
                                              .rescap = 3,
                                              .fpi = 4,
                                              .anagrpid = 5,
                                              .nsattr = 6,
                                              .nvmsetid = 7,
                                              .endgid = 8,
                                              .nstat = 1}));
  EXPECT_EQ(encoded<4096>(id), golden.vector());
}

TEST(CommandSets, BothWays) {
  const Bytes golden = Bytes(4096).put(0, {1}).put(16, {4, 0, 0, 0, 0, 0, 0, 0x80});
  const auto sets = decode_command_sets(golden.span());
  EXPECT_THAT(sets, ElementsAre(1, 0, 0x8000000000000004u));
  std::vector<std::byte> out(4096, std::byte{0xa5});
  encode_command_sets(sets, std::span<std::byte, 4096>(out.data(), 4096));
  EXPECT_EQ(out, golden.vector());
}

}  // namespace
}  // namespace nvmf::nvme
