#include "nvme/print.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>
#include <string_view>
#include <utility>

#include "nvme/address.h"
#include "nvme/hex_dump.h"
#include "nvme/print_identify_flags.h"
#include "nvme/print_lines.h"
#include "nvme/text.h"

namespace nvmf::nvme {
namespace {

// A power with its scale: 1 is 0.0001 W, 2 is 0.01 W. Base 2.1 §5.1.13.2.1 (IPS, APS).
std::string power_text(std::uint16_t power, unsigned scale) {
  switch (scale) {
    case 0:
      return "-";
    case 1:
      return fmt::format("{}.{:04}W", power / 10000, power % 10000);
    case 2:
      return fmt::format("{}.{:02}W", power / 100, power % 100);
    default:
      return "reserved";
  }
}

std::string_view workload_text(unsigned workload) {
  switch (workload) {
    case 0:
      return "-";
    case 1:
      return "1MiB 32 RW, 30s idle";
    case 2:
      return "80K 128KiB SW";
    default:
      return "reserved";
  }
}

void print_power_state(Lines& out, std::size_t number, const PowerState& ps) {
  out.raw("ps {:>6} : mp:{} {} enlat:{} exlat:{} rrt:{} rrl:{}\n", number,
          power_text(ps.mp, (ps.flags & kPowerStateMps) != 0 ? 1 : 2),
          (ps.flags & kPowerStateNops) != 0 ? "non-operational" : "operational",
          as_printed(ps.enlat), as_printed(ps.exlat), ps.rrt, ps.rrl);
  out.raw("            rwt:{} rwl:{} idle_power:{} active_power:{}\n", ps.rwt, ps.rwl,
          power_text(ps.idlp, ps.ips >> 6u), power_text(ps.actp, ps.apws >> 6u));
  out.raw("            active_power_workload:{}\n", workload_text(ps.apws & 7u));
}

void print_capabilities(Fields& out, const IdentifyController& id) {
  out.hex("vid", id.vid);
  out.hex("ssvid", id.ssvid);
  out.padded("sn", id.sn, 20);
  out.padded("mn", id.mn, 40);
  out.padded("fr", id.fr, 8);
  out.dec("rab", id.rab);
  out.text("ieee", fmt::format("{:06x}", id.ieee));
  out.hex("cmic", id.cmic, explain_cmic);
  out.dec("mdts", id.mdts);
  out.hex("cntlid", id.cntlid);
  out.hex("ver", id.ver);
  out.hex("rtd3r", id.rtd3r);
  out.hex("rtd3e", id.rtd3e);
  out.hex("oaes", id.oaes, explain_oaes);
  out.hex("ctratt", id.ctratt, explain_ctratt);
  out.hex("rrls", id.rrls);
  out.dec("cntrltype", std::to_underlying(id.cntrltype), explain_cntrltype);
  out.text("fguid", format_uuid(id.fguid));
  out.dec("crdt1", id.crdt1);
  out.dec("crdt2", id.crdt2);
  out.dec("crdt3", id.crdt3);
  out.dec("nvmsr", id.nvmsr, explain_nvmsr);
  out.dec("vwci", id.vwci, explain_vwci);
  out.dec("mec", id.mec, explain_mec);
}

void print_admin(Fields& out, const IdentifyController& id) {
  out.hex("oacs", id.oacs, explain_oacs);
  out.dec("acl", id.acl);
  out.dec("aerl", id.aerl);
  out.hex("frmw", id.frmw, explain_frmw);
  out.hex("lpa", id.lpa, explain_lpa);
  out.dec("elpe", id.elpe, explain_elpe);
  out.dec("npss", id.npss, explain_npss);
  out.hex("avscc", id.avscc, explain_avscc);
  out.hex("apsta", id.apsta, explain_apsta);
  out.dec("wctemp", id.wctemp, explain_wctemp);
  out.dec("cctemp", id.cctemp, explain_cctemp);
  out.dec("mtfa", id.mtfa);
  out.dec("hmpre", as_printed(id.hmpre));
  out.dec("hmmin", as_printed(id.hmmin));
  out.text("tnvmcap", id.tnvmcap.to_string());
  if (out.human()) explain_tnvmcap(out, id.tnvmcap);
  out.text("unvmcap", id.unvmcap.to_string());
  if (out.human()) explain_unvmcap(out, id.unvmcap);
  out.hex("rpmbs", id.rpmbs, explain_rpmbs);
  out.dec("edstt", id.edstt);
  out.dec("dsto", id.dsto);
  out.dec("fwug", id.fwug);
  out.dec("kas", id.kas);
  out.hex("hctma", id.hctma, explain_hctma);
  out.dec("mntmt", id.mntmt, explain_mntmt);
  out.dec("mxtmt", id.mxtmt, explain_mxtmt);
  out.hex("sanicap", id.sanicap, explain_sanicap);
  out.dec("hmminds", id.hmminds);
  out.dec("hmmaxd", id.hmmaxd);
  out.dec("nsetidmax", id.nsetidmax);
  out.dec("endgidmax", id.endgidmax);
  out.dec("anatt", id.anatt);
  out.dec("anacap", id.anacap, explain_anacap);
  out.dec("anagrpmax", id.anagrpmax);
  out.dec("nanagrpid", id.nanagrpid);
  out.dec("pels", id.pels);
  out.dec("domainid", id.domainid);
  out.text("megcap", id.megcap.to_string());
}

void print_io(Fields& out, const IdentifyController& id) {
  out.hex("sqes", id.sqes, explain_sqes);
  out.hex("cqes", id.cqes, explain_cqes);
  out.dec("maxcmd", id.maxcmd);
  out.dec("nn", as_printed(id.nn));
  out.hex("oncs", id.oncs, explain_oncs);
  out.hex("fuses", id.fuses, explain_fuses);
  out.hex("fna", id.fna, explain_fna);
  out.hex("vwc", id.vwc, explain_vwc);
  out.dec("awun", id.awun);
  out.dec("awupf", id.awupf);
  out.dec("icsvscc", id.icsvscc, explain_icsvscc);
  out.dec("nwpc", id.nwpc, explain_nwpc);
  out.dec("acwu", id.acwu);
  out.hex("ocfs", id.ocfs, explain_ocfs);
  out.hex("sgls", id.sgls, explain_sgls);
  out.dec("mnan", id.mnan);
  out.text("maxdna", id.maxdna.to_string());
  out.dec("maxcna", id.maxcna);
  out.text("subnqn", printable(id.subnqn));
  out.dec("ioccsz", id.ioccsz);
  out.dec("iorcsz", id.iorcsz);
  out.dec("icdoff", id.icdoff);
  out.hex("fcatt", id.fcatt, explain_fcatt);
  out.dec("msdbd", id.msdbd);
  out.dec("ofcs", id.ofcs, explain_ofcs);
}

// Bytes of a block, whatever LBADS says: 0 where 64 bits don't hold them.
std::uint64_t block_bytes(std::uint8_t lbads) {
  return lbads < 64 ? std::uint64_t{1} << lbads : 0;
}

void print_format(Fields& out, std::size_t index, const LbaFormat& format, bool in_use) {
  constexpr std::array<std::string_view, 4> kPerformance = {"Best", "Better", "Good", "Degraded"};
  const std::string_view mark = in_use ? "(in use)" : "";
  if (!out.human()) {
    out.raw("lbaf {:>2} : ms:{:<3} lbads:{:<2} rp:{} {}\n", index, format.ms, format.lbads,
            c_hex(format.rp), mark);
    return;
  }
  out.raw(
      "LBA Format {:>2} : Metadata Size: {:<3} bytes - Data Size: {:<2} bytes - Relative "
      "Performance: {} {} {}\n",
      index, format.ms, block_bytes(format.lbads), c_hex(format.rp),
      format.rp < kPerformance.size() ? kPerformance[format.rp] : kPerformance[0], mark);
}

}  // namespace

std::string print(const IdentifyController& id, Detail detail) {
  Fields out(10, detail == Detail::human);
  out.raw("NVME Identify Controller:\n");
  print_capabilities(out, id);
  print_admin(out, id);
  print_io(out, id);
  const std::size_t states = std::min<std::size_t>(id.npss + 1u, kPowerStates);
  for (std::size_t i = 0; i < states; ++i) print_power_state(out, i, id.psd[i]);
  return out.take();
}

std::string print(const IdentifyNamespace& id, std::uint32_t nsid, Detail detail) {
  Fields out(8, detail == Detail::human);
  out.raw("NVME Identify Namespace {}:\n", nsid);
  out.hex("nsze", id.nsze);
  out.hex("ncap", id.ncap);
  out.hex("nuse", id.nuse);
  out.hex("nsfeat", id.nsfeat, explain_nsfeat);
  out.dec("nlbaf", id.nlbaf);
  out.hex("flbas", id.flbas, explain_flbas);
  out.hex("mc", id.mc, explain_mc);
  out.hex("dpc", id.dpc, explain_dpc);
  out.hex("dps", id.dps, explain_dps);
  out.hex("nmic", id.nmic, explain_nmic);
  out.hex("rescap", id.rescap, explain_rescap);
  out.hex("fpi", id.fpi, explain_fpi);
  out.dec("dlfeat", id.dlfeat, explain_dlfeat);
  out.dec("nawun", id.nawun);
  out.dec("nawupf", id.nawupf);
  out.dec("nacwu", id.nacwu);
  out.dec("nabsn", id.nabsn);
  out.dec("nabo", id.nabo);
  out.dec("nabspf", id.nabspf);
  out.dec("noiob", id.noiob);
  out.text("nvmcap", id.nvmcap.to_string());
  if ((id.nsfeat & kNsfeatOptimal) != 0) {
    out.dec("npwg", id.npwg);
    out.dec("npwa", id.npwa);
    out.dec("npdg", id.npdg);
    out.dec("npda", id.npda);
    out.dec("nows", id.nows);
  }
  out.dec("mssrl", id.mssrl);
  out.dec("mcl", id.mcl);
  out.dec("msrc", id.msrc);
  out.dec("nulbaf", id.nulbaf);
  out.dec("anagrpid", id.anagrpid);
  out.raw("nsattr\t: {}\n", id.nsattr);
  out.dec("nvmsetid", id.nvmsetid);
  out.dec("endgid", id.endgid);
  out.text("nguid", format_hex(id.nguid));
  out.text("eui64", format_hex(id.eui64));
  const std::size_t formats = std::min<std::size_t>(id.nlbaf + id.nulbaf + 1u, kLbaFormats);
  for (std::size_t i = 0; i < formats; ++i) {
    print_format(out, i, id.lbaf[i], i == id.format_index());
  }
  return out.take();
}

std::string print_vendor_specific(const IdentifyController& id) {
  return "vs[]:\n" + hex_dump(id.vs);
}

std::string print_vendor_specific(const IdentifyNamespace& id) {
  constexpr std::size_t kLbstmBytes = 8;
  return "vs[]:\n" + hex_dump(std::span(id.vs).subspan(kLbstmBytes));
}

}  // namespace nvmf::nvme
